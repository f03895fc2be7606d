"""The bounds of a field's type, checked on single values of that type, for which msgspec is slow."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import inspect

from contract.events.values import Unreadable

Check = Callable[[Any], Any]


def make_check(annotation: Any) -> Check:
    """A function that returns a value within its bounds, and raises `Unreadable` in msgspec's words for another one."""
    match inspect.type_info(annotation):
        case inspect.StrType(min_length=least_length, max_length=int(most_length)):
            return partial(check_length, least=least_length or 0, most=most_length)
        case inspect.IntType(ge=int(least), le=int(most)):
            return partial(check_range, least=least, most=most, name="int")
        case inspect.FloatType(ge=int() | float() as lower, le=int() | float() as upper):
            return partial(check_range, least=lower, most=upper, name="float")
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


def check_choice(word: str, choices: tuple[Any, ...]) -> str:
    if word not in choices:
        raise Unreadable(f"Invalid enum value {word!r:.80}")
    return word
