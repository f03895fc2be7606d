"""What compaction leaves of the erasures topic: the last record of each key, of which an erasure may have been wider.

Compaction knows keys and order, not users and times. An erasure dated earlier than the one before it, a tombstone, or
an erasure of another user under the same key make it remove an erasure that still counts. The confirmer then writes
that erasure once more, as a record of our own.
"""

from collections import defaultdict
from typing import Final

from contract.events.model import Erasure
from contract.messages import to_json
from transport.records import Headers, Record, TopicPartition
from worker.kafka.outgoing import OutgoingRecord

COPY_HEADER: Final = "shopstream-copy"  # of records that the confirmer wrote, which are no requests
RecordKey = tuple[TopicPartition, bytes | int]  # a record without a key has its offset: compaction never removes it


class SurvivingErasures:
    """The erasure in the last record of each key, and the widest erasure of each user."""

    def __init__(self) -> None:
        self._last: dict[RecordKey, Erasure] = {}
        self._times_by_user = defaultdict[str, dict[RecordKey, int]](dict)
        self.widest: dict[str, Erasure] = {}  # by user id

    def add(self, record: Record, erasure: Erasure | None) -> str | None:
        """Add the next record of a partition, None for one without a valid erasure.

        Returns the user whose erasure compaction may remove because of this record.
        """
        key = (record.topic_partition, record.offset if record.key is None else record.key)
        previous = self._last.pop(key, None)
        if previous:
            del self._times_by_user[previous.user_id][key]
        if erasure:
            self._last[key] = erasure
            self._times_by_user[erasure.user_id][key] = erasure.ts_ms
            widest = self.widest.get(erasure.user_id)
            if widest is None or erasure.ts_ms > widest.ts_ms:
                self.widest[erasure.user_id] = erasure
        if previous is None or (erasure and erasure.user_id == previous.user_id and erasure.ts_ms >= previous.ts_ms):
            return None
        return previous.user_id

    def survives(self, user_id: str) -> bool:
        """Whether compaction keeps a record that erases as much of this user as all records do together."""
        return max(self._times_by_user[user_id].values(), default=-1) >= self.widest[user_id].ts_ms


def build_copy(erasure: Erasure, topic_partition: TopicPartition) -> OutgoingRecord:
    """An erasure as the record that compaction keeps: with the user as its key."""
    return OutgoingRecord(
        topic_partition.topic,
        erasure.user_id,
        to_json(erasure),
        [(COPY_HEADER, b"")],
        partition=topic_partition.partition,
    )


def is_copy(headers: Headers) -> bool:
    return any(name == COPY_HEADER for name, _ in headers)
