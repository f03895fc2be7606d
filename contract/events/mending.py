"""Records that are almost JSON, as some encoders write them."""

import re
from typing import Final

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
