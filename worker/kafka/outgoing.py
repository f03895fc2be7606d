"""Records to write, and what becomes of one that its topic refuses."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from transport.records import Headers

RECORD_OVERHEAD_BYTES: Final = 160  # of a record in a batch of its own: more than lengths, offsets and times take
HEADER_OVERHEAD_BYTES: Final = 10


class Refusal(NamedTuple):
    """Why a topic does not take a record; `bytes_max`: how large a record it takes instead."""

    bytes_max: int
    reason: str


class OutgoingRecord(NamedTuple):
    """A record to write. `replace` gives what is written instead of one that its topic refuses.

    Without `replace` the producer waits until the topic takes the record. `partition` -1: the one of its key.
    """

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: Headers = ()
    replace: "Replacement | None" = None  # called with this record
    partition: int = -1

    def count_bytes(self) -> int:
        """The bytes that the record has in a batch of its own, before compression; never too few."""
        key = self.key.encode() if isinstance(self.key, str) else self.key
        headers = sum(
            len(name.encode()) + len(content or b"") + HEADER_OVERHEAD_BYTES for name, content in self.headers
        )
        return len(key or b"") + len(self.value or b"") + headers + RECORD_OVERHEAD_BYTES


Replacement: TypeAlias = Callable[[OutgoingRecord, Refusal], OutgoingRecord | None]


def leave_out(record: OutgoingRecord, refusal: Refusal) -> None:
    """The replacement of a record that others do not wait for: nothing."""
