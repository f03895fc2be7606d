"""[entities.NAME]: a shop's own kinds of entities, each with a profile."""

from collections.abc import Iterator, Mapping

from pydantic import field_validator

from contract.attributes import is_attribute
from contract.features.sources import describe_nearest, find_attribute_names, list_text_fields
from contract.profiles.entity_kinds import DECLARED_MAX, KIND_NAME, DeclaredEntity
from contract.profiles.record import ENTITY_KINDS
from contract.settings.intake import IntakeSettings
from contract.settings.section import Section


class EntitySettings(Section):
    """An entity that an event names by an attribute, or by a field of its own that holds a text.

    `ignore_case`: spellings in upper and lower case are one entity.
    """

    source: str
    ignore_case: bool = False

    @field_validator("source")
    @classmethod
    def _check_source(cls, value: str) -> str:
        prefix, _, field = value.partition(".")
        fields = list_text_fields()
        if prefix == "event" and (is_attribute(field) or field in fields):
            return value
        nearest = describe_nearest(value, [*(f"event.{name}" for name in fields), *find_attribute_names(value)])
        names = ", ".join(fields)
        raise ValueError(f"should be `event.attributes.NAME`, or `event.` and one of {names}{nearest}")


def declare_entities(entities: Mapping[str, EntitySettings], intake: IntakeSettings) -> tuple[DeclaredEntity, ...]:
    """The declared entities in the order of the file."""
    placeholders = intake.folded_placeholders
    return tuple(
        DeclaredEntity(kind, table.source, table.ignore_case, placeholders) for kind, table in entities.items()
    )


def find_entity_mistakes(names: Mapping[str, object]) -> Iterator[str]:
    """What is wrong with the names of `[entities]`."""
    if len(names) > DECLARED_MAX:
        yield f"`entities` should declare at most {DECLARED_MAX}, since each costs state. Found {len(names)}."
    for name in names:
        if name in ENTITY_KINDS:
            yield f"`entities.{name}` should have a name of its own. Found one of {', '.join(ENTITY_KINDS)}."
        elif not KIND_NAME.fullmatch(name):
            yield f"`entities.{name}` should be a lower-case word of at most 32 letters, digits and `_`. Found another."
