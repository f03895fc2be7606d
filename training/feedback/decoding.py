"""Records of the topics that workers and the joiner write; another program may have written one, too."""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

Message = TypeVar("Message")
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # the second of texts in MessagePack


def decode_or_none(decode: Callable[[bytes], Message], value: bytes | None) -> Message | None:
    """The message of a record; None for one that cannot be read."""
    try:
        return decode(value or b"")
    except UNREADABLE:
        return None
