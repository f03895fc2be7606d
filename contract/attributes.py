"""Attributes: a shop's own fields of its events, read by the type that a feature or an entity is declared with.

A value of another type is as absent as a missing one; `find_absence` tells the two apart for those who count them.
"""

from typing import Final, Literal, TypeAlias

from contract.events.model import WHOLE_MAX, Event

PREFIX: Final = "attributes."  # of a source after `event.` or `item.`
NUMBER_MAX: Final = 3.4e38  # of a float32

AttributeKind: TypeAlias = Literal["number", "category", "text", "vector"]
Absence: TypeAlias = Literal["missing", "type"]
NUMBERS: Final = (bool, int, float)  # a constant, since `bool | int | float` would build a union at each call


def is_attribute(field: str) -> bool:
    """Whether the field of a source (what follows `event.`) is an attribute with a name."""
    return field.startswith(PREFIX) and len(field) > len(PREFIX)


def read_attribute(event: Event, name: str) -> object:
    """The value of an event's attribute, None where there is none."""
    attributes = getattr(event, "attributes", None)
    return attributes.get(name) if attributes else None


def read_field(event: Event, field: str) -> object:
    """The value of a field or of an attribute, None where there is none."""
    if field.startswith(PREFIX):
        return read_attribute(event, field[len(PREFIX) :])
    return getattr(event, field, None)


def to_number(value: object) -> float | None:
    """A number, or true and false as 1 and 0; None for anything else, and for what float32 cannot hold."""
    if isinstance(value, NUMBERS) and -NUMBER_MAX <= value <= NUMBER_MAX:
        return float(value)
    return None


def to_category(value: object) -> str | None:
    """A text, a truth value or a whole number as the name of a category; None for anything else and for no text."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    return to_whole(value)


def to_whole(value: object) -> str | None:
    """A whole number as its digits, `5.0` as `5`; None for anything else, and where JSON would not be exact."""
    if isinstance(value, int | float) and -WHOLE_MAX <= value <= WHOLE_MAX and value == int(value):
        return str(int(value))
    return None


def to_text(value: object) -> str | None:
    """A text; None for anything else and for an empty one."""
    return value or None if isinstance(value, str) else None


def to_vector(value: object, size: int) -> list[float] | None:
    """A list of `size` numbers; None for any other list, which has another meaning, and for anything else."""
    if not isinstance(value, list | tuple) or len(value) != size:
        return None
    numbers = [to_number(element) for element in value]
    return None if None in numbers else numbers  # type: ignore[return-value]  # without None


def find_absence(value: object) -> Absence:
    """Why an attribute that could not be read is absent."""
    return "missing" if value is None or value == "" else "type"
