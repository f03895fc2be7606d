"""How far erasures are carried out: one hash in Redis, with a field for each owned partition of each lane.

    erasures    hash    LANE>TOPIC/PARTITION -> {"ID/PARTITION": offset, ...}    erasures before are carried out there

Each generation of the state has such a hash, next to its profiles.
ID is the id of the erasures topic, so that progress on a deleted topic does not count for a new topic of that name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from contract.messages import to_json
from transport.records import TopicPartition
from worker.ops import metrics
from worker.redis.client import WrongType, to_pairs
from worker.state.profile_store import RedisProfileStore, source_name

ErasureOffsets: TypeAlias = Mapping[str, int]  # partition of the erasures topic -> offset (exclusive)
from_json: Final = msgspec.json.Decoder(dict[str, int]).decode
NO_OFFSETS: Final[ErasureOffsets] = {}


class ErasureProgress:
    """Reads and writes the progress hash."""

    def __init__(self, *, profiles: RedisProfileStore, topic_id: Callable[[], str | None] = lambda: None) -> None:
        """`topic_id` queries the id of the erasures topic; None if the broker has no topic ids."""
        self._profiles = profiles
        self._query_topic_id = topic_id
        self._topic_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self._profiles.prefix}erasures"

    def open(self) -> None:
        """Query the id of the erasures topic; raises `Unavailable`."""
        self._topic_id = self._query_topic_id()

    def partition_name(self, topic_partition: TopicPartition) -> str:
        """The name of a partition of the erasures topic in the progress hash."""
        return source_name("erasures", self._topic_id, topic_partition.partition)

    def read(self) -> dict[str, ErasureOffsets]:
        """The offsets by field; empty for a field that cannot be decoded."""
        (reply,) = self._query(("HGETALL", self.key))
        return {field.decode(errors="replace"): decode_offsets(value) for field, value in to_pairs(reply)}

    def write(self, fields: Iterable[str], offsets: ErasureOffsets) -> None:
        """Set these fields to `offsets`."""
        flat = [part for field in fields for part in (field, to_json(offsets))]
        if flat:
            self._query(("HSET", self.key, *flat))

    def _query(self, command: Sequence[Any]) -> list[Any]:
        """The reply; a key of another type is deleted, and its progress counts as lost."""
        client = self._profiles.client
        while True:
            try:
                return client.pipeline([command])
            except WrongType:
                metrics.UNREADABLE_KEYS.labels("erasures").inc(client.delete_other_type(self.key, "hash"))

    def inherit(self, former: "ErasureProgress", built: Mapping[TopicPartition, int]) -> None:
        """Set every field to the lower of its former progress and of `built`, the erasures applied by a rebuild."""
        ends = {self.partition_name(topic_partition): end for topic_partition, end in built.items()}
        for field, offsets in former.read().items():
            self.write([field], {name: min(offset, offsets[name]) for name, offset in ends.items() if name in offsets})


def decode_offsets(value: bytes) -> ErasureOffsets:
    try:
        return from_json(value)
    except msgspec.MsgspecError:
        return NO_OFFSETS


def owner_field(lane: str, topic_partition: TopicPartition) -> str:
    """The field of the owner of a partition in a lane."""
    return f"{lane}>{topic_partition.topic}/{topic_partition.partition}"
