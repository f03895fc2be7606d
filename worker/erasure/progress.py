"""How far erasures are carried out: one hash in Redis, with a field for each owned partition of each lane.

    erasures       hash    LANE>TOPIC/PARTITION -> {"ID/PARTITION": offset, ...}    earlier ones are carried out there
    unconfirmed    hash    ID/PARTITION -> offset                                   confirm them again from there on

Each generation of the state has a hash of the first kind, next to its profiles.
ID is the id of the erasures topic, so that progress on a deleted topic does not count for a new topic of that name.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from contract.messages import to_json
from transport.records import TopicPartition
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType, to_pairs
from worker.state.profile_store import RedisProfileStore, source_name

ErasureOffsets: TypeAlias = Mapping[str, int]  # partition of the erasures topic -> offset (exclusive)
from_json: Final = msgspec.json.Decoder(dict[str, int]).decode
NO_OFFSETS: Final[ErasureOffsets] = {}
# KEYS: unconfirmed. ARGV: pairs of a partition and an offset. A lower offset stays.
LOWER: Final = """
for at = 1, #ARGV, 2 do
  local offset = tonumber(redis.call('HGET', KEYS[1], ARGV[at]))
  if not offset or tonumber(ARGV[at + 1]) < offset then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
end
return 1
"""
# KEYS: unconfirmed. ARGV: pairs of a partition and an offset. Another offset stays.
REMOVE: Final = """
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 1
"""


class ErasureProgress:
    """Reads and writes the progress hash."""

    def __init__(self, *, profiles: RedisProfileStore, topic_id: Callable[[], str | None] = lambda: None) -> None:
        """`topic_id` queries the id of the erasures topic; None if the broker has no topic ids."""
        self._profiles = profiles
        self._query_topic_id = topic_id
        self._topic_id: str | None = None

    @property
    def client(self) -> RedisClient:
        return self._profiles.client

    @property
    def key(self) -> str:
        return f"{self._profiles.prefix}erasures"

    @property
    def unconfirmed_key(self) -> str:
        """One for all generations: a confirmation is about all of them."""
        generations = self._profiles.generations
        return f"{generations.prefix if generations else self._profiles.prefix}unconfirmed"

    def open(self) -> None:
        """Query the id of the erasures topic; raises `Unavailable`."""
        self._topic_id = self._query_topic_id()

    def set_topic_id(self, topic_id: str | None) -> None:
        """Name partitions by this id from now on; None: the topic, or its id, is not known yet."""
        if topic_id is not None:
            self._topic_id = topic_id

    def partition_name(self, topic_partition: TopicPartition) -> str:
        """The name of a partition of the erasures topic in the progress hash."""
        return source_name("erasures", self._topic_id, topic_partition.partition)

    def read(self) -> dict[str, ErasureOffsets]:
        """The offsets by field; empty for a field that cannot be decoded."""
        (reply,) = self._call(self.key, lambda: self.client.pipeline([("HGETALL", self.key)]))
        return {field.decode(errors="replace"): decode_offsets(value) for field, value in to_pairs(reply)}

    def write(self, fields: Iterable[str], offsets: ErasureOffsets) -> None:
        """Set these fields to `offsets`."""
        flat = [part for field in fields for part in (field, to_json(offsets))]
        if flat:
            self._call(self.key, lambda: self.client.pipeline([("HSET", self.key, *flat)]))

    def request_confirmation(self, offsets: ErasureOffsets) -> None:
        """Ask for another confirmation of the erasures from these offsets on."""
        self._run_script(LOWER, offsets)

    def read_requests(self) -> dict[str, int]:
        """From which offset on erasures have to be confirmed again, by partition."""
        key = self.unconfirmed_key
        (reply,) = self._call(key, lambda: self.client.pipeline([("HGETALL", key)]))
        return {field.decode(errors="replace"): int(value) for field, value in to_pairs(reply) if value.isdigit()}

    def remove_requests(self, offsets: ErasureOffsets) -> None:
        """The position of the consumer group is back at these offsets; requests that came since stay."""
        self._run_script(REMOVE, offsets)

    def inherit(self, former: "ErasureProgress", built: Mapping[TopicPartition, int]) -> None:
        """Set every field to the lower of its former progress and of `built`, the erasures applied by a rebuild."""
        ends = {self.partition_name(topic_partition): end for topic_partition, end in built.items()}
        for field, offsets in former.read().items():
            self.write([field], {name: min(offset, offsets[name]) for name, offset in ends.items() if name in offsets})

    def _run_script(self, script: str, offsets: ErasureOffsets) -> None:
        if offsets:
            flat, key = [part for item in offsets.items() for part in item], self.unconfirmed_key
            self._call(key, lambda: self.client.run_script(script, [([key], flat)]))

    def _call(self, key: str, call: Callable[[], list[Any]]) -> list[Any]:
        """The reply to a call; a key of another type is deleted, and what it should hold counts as lost."""
        while True:
            try:
                return call()
            except WrongType:
                metrics.UNREADABLE_KEYS.labels("erasures").inc(self.client.delete_other_type(key, "hash"))


def decode_offsets(value: bytes) -> ErasureOffsets:
    try:
        return from_json(value)
    except msgspec.MsgspecError:
        return NO_OFFSETS


def find_lower(offsets: ErasureOffsets, reference: ErasureOffsets) -> dict[str, int]:
    """The partitions in which `offsets` are below the reference, with their offset there."""
    return {name: offsets.get(name, 0) for name, offset in reference.items() if offsets.get(name, 0) < offset}


def owner_field(lane: str, topic_partition: TopicPartition) -> str:
    """The field of the owner of a partition in a lane."""
    return f"{lane}>{topic_partition.topic}/{topic_partition.partition}"
