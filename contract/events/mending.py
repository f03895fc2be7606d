"""Records that are almost JSON, as some encoders write them: what can be meant in one way only is read.

All else that is not JSON (cut off, in single quotes, with comments, several documents) is a dead letter.
"""

import json
import re
from typing import Any, Final

from contract.events.values import DamagedText

DIGITS_MAX: Final = 64  # of an integer in a document that msgspec does not decode
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
ENDINGS: Final = b"\0 \t\r\n"  # a text of C ends with a zero
HALF: Final = b"\\ud"
REPLACEMENT: Final = b"\\ufffd"
# An escape: both halves of a surrogate pair, one half alone (in the group), or any other.
ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
LAST_COMMA: Final = re.compile(rb",\s*+[}\]]")
# A text, to its end or that of the record, or (in the group) a comma behind the last entry of a list or an object.
TEXT_OR_COMMA: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|(,)(?=\s*+[}\]])', re.DOTALL)


def mend(value: bytes) -> bytes:
    """A record as UTF-8, without a byte order mark, zeros at its end and commas behind last entries.

    Each half of a surrogate pair that stands alone, as is left where a text was cut in the middle of a character, is
    U+FFFD.
    """
    value = to_utf8(value).removeprefix(BYTE_ORDER_MARK).rstrip(ENDINGS)
    if HALF in value.lower():
        value = ESCAPE.sub(replace_half, value)
    return TEXT_OR_COMMA.sub(remove_comma, value) if LAST_COMMA.search(value) else value


def to_utf8(value: bytes) -> bytes:
    """A record in UTF-16 or UTF-32 as UTF-8; any other as it is, also one that begins as those of a registry do."""
    encoding = "utf-8" if value.startswith(b"\0") else json.detect_encoding(value)
    try:
        return value if encoding.startswith("utf-8") else value.decode(encoding).encode()
    except UnicodeError:
        return value


def replace_half(escape: re.Match[bytes]) -> bytes:
    return REPLACEMENT if escape[1] else escape[0]


def remove_comma(part: re.Match[bytes]) -> bytes:
    return b"" if part[1] else part[0]


def load(mended: bytes) -> object:
    """The document of a mended record, with NaN and Infinity, as which it has numbers that no float can hold too.

    Texts may have control characters, and a `DamagedText` stands for each that is not UTF-8. Raises `ValueError` and
    `RecursionError`.
    """
    text = mended.decode(errors="surrogateescape")
    document = json.loads(text, parse_int=parse_integer, strict=False)
    return document if is_utf8(text) else mark_damaged(document)


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
