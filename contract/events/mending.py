"""Records that are almost JSON, as some encoders write them: what can be read of them is."""

import json
import re
from typing import Any, Final

from contract.events.values import DamagedText

DIGITS_MAX: Final = 64  # of an integer in a document that msgspec does not decode
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
HALF: Final = b"\\ud"
REPLACEMENT: Final = b"\\ufffd"
# An escape: both halves of a surrogate pair, one half alone (in the group), or any other.
ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)


def mend(value: bytes) -> bytes:
    """A record without a byte order mark, and with U+FFFD for each half of a surrogate pair that stands alone.

    Such a half is what is left where a text was cut in the middle of a character.
    """
    value = value.removeprefix(BYTE_ORDER_MARK)
    return ESCAPE.sub(replace_half, value) if HALF in value.lower() else value


def replace_half(escape: re.Match[bytes]) -> bytes:
    return REPLACEMENT if escape[1] else escape[0]


def has_constant(value: bytes) -> bool:
    """Whether a record may have a number that some encoders write and JSON lacks."""
    return b"NaN" in value or b"Infinity" in value


def load(value: bytes) -> object:
    """A document with NaN and Infinity, as which it has numbers that no float can hold too.

    Raises `ValueError` and `RecursionError`.
    """
    return load_text(mend(value).decode())


def load_damaged(value: bytes) -> object:
    """`load` with a `DamagedText` for each text that is not UTF-8."""
    return mark_damaged(load_text(mend(value).decode(errors="surrogateescape")))


def load_text(text: str) -> object:
    return json.loads(text, parse_int=parse_integer)


def parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= DIGITS_MAX else float(digits)


def mark_damaged(part: Any) -> Any:
    match part:
        case str():
            return part if is_utf8(part) else DamagedText()
        case list():
            return [mark_damaged(entry) for entry in part]
        case dict():
            return {name if is_utf8(name) else restore(name): mark_damaged(entry) for name, entry in part.items()}
    return part


def is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def restore(text: str) -> str:
    """A text with U+FFFD for its bytes that are not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
