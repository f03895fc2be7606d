"""What every table of `shop.toml` has in common, and its form as JSON in checkpoints and reports."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Share = Annotated[float, Field(gt=0, lt=1)]


def refuse_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


class Section(BaseModel):
    """A table of the file, frozen; an unknown name in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool_as_number(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[info.field_name or ""]
        return refuse_bool(value) if field.annotation in (int, float) else value


def encode_section(value: object) -> dict[str, Any]:
    """`enc_hook` of msgspec: a section as a table of all its values, defaults included."""
    if isinstance(value, Section):
        return value.model_dump()
    raise NotImplementedError(f"JSON should be made of known types. Found {type(value).__name__}.")


def decode_section(section: type, value: object) -> Section:
    """`dec_hook` of msgspec: the section that `encode_section` wrote; absent values have their defaults."""
    if issubclass(section, Section):
        return section.model_validate(value, strict=True)
    raise NotImplementedError(f"JSON should be made of known types. Found {section.__name__}.")
