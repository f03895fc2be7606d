"""Bounds that msgspec does not check: of a field's type on single values, for which it is slow, and of nesting."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
from msgspec import inspect

from contract.errors import BadEvent
from contract.events.values import Unreadable

Check = Callable[[Any], Any]
LEVELS_MAX: Final = 500  # half of what Python reads from an empty stack: a record is then the same for every reader
STEPS: Final = np.zeros(256, np.int8)  # by byte: one level down or up
STEPS[list(b"[{")], STEPS[list(b"]}")] = 1, -1


def check_depth(value: bytes) -> None:
    """Raise `BadEvent` for JSON that is nested deeper than `LEVELS_MAX`; shorter records cannot be."""
    if len(value) <= 2 * LEVELS_MAX or value.count(b"[") + value.count(b"{") <= LEVELS_MAX:
        return
    unescaped = value.replace(b"\\\\", b"").replace(b'\\"', b"")  # each quote that is left opens or closes a text
    marks = np.frombuffer(unescaped, np.uint8)
    is_outside = (np.cumsum(marks == ord('"'), dtype=np.int32) & 1) == 0
    levels = int(np.cumsum(STEPS[marks] * is_outside, dtype=np.int32).max(initial=0))
    if levels > LEVELS_MAX:
        raise BadEvent("too_deep", f"A record should be nested at most {LEVELS_MAX} levels deep. Found {levels}.")


def make_check(annotation: Any) -> Check:
    """A function that returns a value within its bounds, and raises `Unreadable` in msgspec's words for another one."""
    match inspect.type_info(annotation):
        case inspect.StrType(min_length=least_length, max_length=int(most_length)):
            return partial(check_length, least=least_length or 0, most=most_length)
        case inspect.IntType(ge=int(least), le=int(most)):
            return partial(check_range, least=least, most=most, name="int")
        case inspect.FloatType(ge=int() | float() as lower, le=int() | float() as upper):
            return partial(check_range, least=lower, most=upper, name="float")
        case inspect.UnionType(types=(inspect.IntType(), inspect.FloatType(gt=int() | float() as above, le=most))):
            return partial(check_above, above=above, most=most)
        case inspect.LiteralType(values=values):
            return partial(check_choice, choices=values)
    return lambda value: value


def check_length(text: str, least: int, most: int) -> str:
    if len(text) < least:
        raise Unreadable(f"Expected `str` of length >= {least}")
    if len(text) > most:
        raise Unreadable(f"Expected `str` of length <= {most}")
    return text


def check_range(number: float, least: float, most: float, name: str) -> float:
    if number < least:
        raise Unreadable(f"Expected `{name}` >= {least}")
    if number > most:
        raise Unreadable(f"Expected `{name}` <= {most}")
    return number


def check_above(number: float, above: float, most: float | None) -> float:
    if not number > above:
        raise Unreadable(f"Expected `float` > {above}")
    return number if most is None else check_range(number, above, most, "float")


def check_choice(word: str, choices: tuple[Any, ...]) -> str:
    if word not in choices:
        raise Unreadable(f"Invalid enum value {word!r:.80}")
    return word
