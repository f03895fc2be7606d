"""What one life of the joiner tells the next, stored with each committed position. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from worker.intake import Held, Place


class Note(Struct, frozen=True, gc=False, omit_defaults=True):
    """`orphans`: labels without a row that nobody reads again, by task, of all partitions together.

    Of the partition's records below `read`, those of an event before `since_ms` give nothing any more.
    """

    orphans: dict[str, int] = {}
    read: int = 0
    since_ms: int = 0

    def is_closed(self, offset: int, ts_ms: int) -> bool:
        """Whether a record that is read again has had all its consequences."""
        return offset < self.read and ts_ms < self.since_ms


NONE: Final = Note()
to_json: Final = msgspec.json.Encoder(order="sorted").encode
from_json: Final = msgspec.json.Decoder(Note).decode


def write(note: Note) -> str:
    return to_json(note).decode()


def read(text: str) -> Note:
    """The note; an empty one in place of what somebody else has written."""
    try:
        return from_json(text or "{}")
    except msgspec.DecodeError:
        return NONE


def read_all(held: Mapping[Place, Held]) -> dict[Place, Note]:
    return {place: read(at.note) for place, at in held.items()}
