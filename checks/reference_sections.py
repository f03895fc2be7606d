"""What `checks.reference` reads of sections and structs: types, bounds, defaults, and what they mean in words."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

SETTING: Final = re.compile(r"^\| `([a-z_.]+)` \| .*? \| `SHOPSTREAM_\w+` \| (.*) \|$", re.MULTILINE)
DESCRIBED: Final = re.compile(r"`(\w+)`: (.*?)(?=\s`\w+`: |\n\n|\Z)", re.DOTALL)
BOUNDS: Final = {"gt": "above {}", "ge": "{} or more", "lt": "below {}", "le": "at most {}"}
TYPES: Final = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def read_documented_meanings(page: Path) -> dict[str, str]:
    """The meaning of each setting, from the table of all settings; links are as seen from a folder below."""
    return {name: relink(meaning, page.name) for name, meaning in SETTING.findall(page.read_text())}


def relink(text: str, page: str) -> str:
    """The text with its relative links as seen from a folder below."""
    return re.sub(r"\]\((#?)(?!http)", lambda match: f"](../{page}#" if match[1] else "](../", text)


def read_docstring_meanings(struct: type) -> dict[str, str]:
    """The meaning of each field that a docstring describes as `` `field`: sentences``."""
    return {name: " ".join(text.split()).rstrip(".") for name, text in DESCRIBED.findall(struct.__doc__ or "")}


def format_section(
    name: str, section: type[BaseModel], meanings: Mapping[str, str]
) -> tuple[tuple[str, ...], Iterator[tuple[str, ...]]]:
    """Head and rows of the table of a section's settings."""
    rows = (
        (
            f"`{field_name}`",
            describe_field(field),
            f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`",
            f"`SHOPSTREAM_{name.upper()}__{field_name.upper()}`",
            meanings[f"{name}.{field_name}"],
        )
        for field_name, field in section.model_fields.items()
    )
    return ("key", "type", "default", "environment", "meaning"), rows


def describe_field(field: FieldInfo) -> str:
    """The type of a setting and its bounds."""
    annotation: Any = field.annotation
    if annotation not in TYPES:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    bounds = [
        words.format(f"{getattr(limit, name):,}")
        for limit in field.metadata
        for name, words in BOUNDS.items()
        if hasattr(limit, name)
    ]
    return ", ".join([TYPES[annotation], *bounds])
