"""How far erasures are carried out: one hash in Redis, a field for whoever holds a partition in a lane.

    erasures    hash    LANE>TOPIC/PARTITION -> {"ID/PARTITION": offset, ...}    all before is forgotten there

A generation of the state has marks of its own, beside its profiles.
ID is that of the topic of erasures, so that what is said of one topic is not believed of another of its name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

from contract.messages import to_json
from transport.records import TopicPartition
from worker.redis.client import to_pairs
from worker.state.profile_store import RedisProfileStore, source_name

ErasureOffsets: TypeAlias = Mapping[str, int]  # partition of the topic of erasures -> offset (exclusive)
from_json: Final = msgspec.json.Decoder(dict[str, int]).decode
NO_OFFSETS: Final[ErasureOffsets] = {}


class ErasureProgress:
    """Reads and writes these marks."""

    def __init__(self, *, profiles: RedisProfileStore, topic_id: Callable[[], str | None] = lambda: None) -> None:
        """`topic_id`: asks for the id of the topic of erasures, if the broker tells."""
        self._profiles = profiles
        self._query_topic_id = topic_id
        self._topic_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self._profiles.prefix}erasures"

    def open(self) -> None:
        """Ask which topic of erasures it is that marks are about; raises `Unavailable`."""
        self._topic_id = self._query_topic_id()

    def partition_name(self, topic_partition: TopicPartition) -> str:
        """What a partition of the topic of erasures is called in marks."""
        return source_name("erasures", self._topic_id, topic_partition.partition)

    def read(self) -> dict[str, ErasureOffsets]:
        """Every field; one that cannot be read says nothing."""
        (reply,) = self._profiles.client.pipeline([("HGETALL", self.key)])
        return {field.decode(errors="replace"): decode_offsets(value) for field, value in to_pairs(reply)}

    def write(self, fields: Iterable[str], offsets: ErasureOffsets) -> None:
        """Note how far these are."""
        flat = [part for field in fields for part in (field, to_json(offsets))]
        if flat:
            self._profiles.client.pipeline([("HSET", self.key, *flat)])

    def inherit(self, former: "ErasureProgress", built: Mapping[TopicPartition, int]) -> None:
        """Note of every holder what holds both of its former mark and of a state built with erasures up to `built`."""
        ends = {self.partition_name(topic_partition): end for topic_partition, end in built.items()}
        for field, offsets in former.read().items():
            self.write([field], {name: min(offset, offsets[name]) for name, offset in ends.items() if name in offsets})


def decode_offsets(value: bytes) -> ErasureOffsets:
    try:
        return from_json(value)
    except msgspec.MsgspecError:
        return NO_OFFSETS


def holder_field(lane: str, topic_partition: TopicPartition) -> str:
    """The field of whoever holds a partition in a lane."""
    return f"{lane}>{topic_partition.topic}/{topic_partition.partition}"
