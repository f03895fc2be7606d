"""Profiles in Redis: read whole; written per bucket together with its merged offsets, guarded by the former ones."""

import logging
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.hashing import BUCKETS
from contract.mapping.event_topics import EventTopics
from contract.profiles.histories import LoadedHistories
from contract.profiles.logins import LOGINS, add_logins, group_logins
from contract.profiles.record import HORIZON_MS, LAYOUT, RECORD
from contract.profiles.slices import LoadedSlices, Slices, SliceWrites, check_lengths, to_slice_writes
from contract.profiles.store import MergedOffsets
from contract.units import DAY_MS
from transport.records import TopicPartition
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType, to_pairs
from worker.state.generations import FIRST, Generations, generation_prefix, parse_generation
from worker.state.merge_script import MERGE, MergeCalls
from worker.state.profile_keys import ProfileKeys

log = logging.getLogger(__name__)

# Redis' expiry only collects garbage, so it exceeds the fold's horizon by the longest expected retention.
TTL_MS: Final = HORIZON_MS + 30 * DAY_MS
RETENTION_MIN_MS: Final = TTL_MS - 3 * DAY_MS  # a profile stays at least this long after a write
OFFSET_MAX: Final = 2**63 - 1
NO_SOURCE: Final = 0xFFFF << 16


class UnreadableProfiles(StaleState):
    """Some profiles cannot be read; `entities` are those that were asked for. See `worker.state.profile_repair`."""

    def __init__(self, message: str, entities: Sequence[str]) -> None:
        super().__init__(message)
        self.entities = entities


class RedisProfileStore:
    """`contract.profiles.store.ProfileStore` in a Redis or Valkey.

    With `generations` it uses the serving one: `refresh_generation` switches to it, and a read while another one serves
    raises `StaleState`. Without, it uses the keys under `prefix`.
    """

    def __init__(self, *, client: RedisClient, prefix: str, generations: Generations | None = None) -> None:
        self.client = client
        self.generations, self.generation = generations, FIRST
        self.keys = ProfileKeys(prefix)

    def refresh_generation(self) -> None:
        """Switch to the serving generation; raises `BadProfile` where only other layouts have a state."""
        if self.generations is not None and (name := self.generations.open()) != self.generation:
            log.info("Switching to state generation %s.", name or "1 (unnamed)")
            self.generation = name
            self.keys = ProfileKeys(generation_prefix(self.generations.prefix, name))

    def read_log_starts(self) -> dict[str, int]:
        """The offset at which this state begins, of each source whose log it does not have whole."""
        return self._read_starts("begins")

    def read_history_starts(self) -> dict[str, int]:
        """The offset from which on histories have the events of each source; a state may be older than histories."""
        return self._read_starts("history_begins")

    def write_history_starts(self, starts: Mapping[str, int]) -> None:
        """Record from which offset on histories have the events of sources that have none recorded."""
        self.client.pipeline([("HSETNX", f"{self.prefix}history_begins", *start) for start in starts.items()])

    def _read_starts(self, name: str) -> dict[str, int]:
        key = f"{self.prefix}{name}"
        try:
            (fields,) = self.client.pipeline([("HGETALL", key)])
        except WrongType:
            self._delete_other_type(key, name)
            return {}
        return {
            source.decode(errors="replace"): int(offset) for source, offset in to_pairs(fields) if is_offset(offset)
        }

    def write_log_starts(self, log_starts: Mapping[str, int]) -> None:
        """Record the offset at which this state begins in each source, before anything of it is merged."""
        fields = list(chain.from_iterable(log_starts.items()))
        if fields:
            self.client.pipeline([("HSET", self.log_starts_key, *fields)])

    def read(self, entities: Sequence[str], buckets: npt.NDArray[np.int64] | None = None) -> LoadedSlices:
        # One HGETALL each: in a script Redis would copy every slice twice more, into Lua and out again.
        command = None if self.generations is None else self.generations.serving_command
        try:
            hashes, reply = self.client.read_hashes(self.keys.profiles(entities, buckets), command)
            self._check_generation(reply)
            check_lengths(hashes.lengths)
            check_layouts(hashes.values)
        except (WrongType, BadProfile) as error:
            raise UnreadableProfiles(f"Profiles should be readable. Found: {error}", entities) from error
        return LoadedSlices(
            length=len(entities),
            sources=hashes.names,
            entity=hashes.hash_index,
            source=hashes.name_index,
            records=[hashes.values],
        )

    def read_histories(self, users: Sequence[str]) -> LoadedHistories:
        command = None if self.generations is None else self.generations.serving_command
        try:
            hashes, reply = self.client.read_hashes(self.keys.histories(users), command)
            self._check_generation(reply)
            histories = LoadedHistories(
                len(users), hashes.names, hashes.hash_index, hashes.name_index, hashes.lengths, bytes(hashes.values)
            ).separate_logins()
            histories.check()
        except (WrongType, BadProfile) as error:
            raise UnreadableProfiles(f"Histories should be readable. Found: {error}", users) from error
        return histories

    def read_offsets(self, sources: Iterable[str]) -> MergedOffsets:
        wanted = sorted(sources)
        if not wanted:
            return {bucket: {} for bucket in range(BUCKETS)}
        replies = self._query_offsets([("HMGET", self.keys.offsets(bucket), *wanted) for bucket in range(BUCKETS)])
        read = [{s: offset for s, offset in zip(wanted, reply, strict=True) if offset is not None} for reply in replies]
        self._delete_unreadable_offsets(read)
        return {
            bucket: {source: int(offset) for source, offset in offsets.items() if is_offset(offset)}
            for bucket, offsets in enumerate(read)
        }

    def read_merged_sources(self, bucket: int) -> set[str]:
        """The sources that have a merged offset in a bucket."""
        (sources,) = self._query_offsets([("HKEYS", self.keys.offsets(bucket))])
        return {source.decode(errors="replace") for source in sources}

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        written = to_slice_writes(writes)
        calls = MergeCalls(written, self._merge_logins(written), self.keys)
        replies = self.client.run_script(
            MERGE,
            [
                calls.build(bucket, expected.get(bucket, {}), positions, TTL_MS, RETENTION_MIN_MS)
                for bucket, positions in after.items()
            ],
        )
        unreadable = [
            calls.find_history_user(bucket, reply[0])
            for bucket, reply in zip(after, replies, strict=True)
            if isinstance(reply, list)
        ]
        if unreadable:
            raise UnreadableProfiles(f"Histories should be readable. Found {len(unreadable)} that are not.", unreadable)
        if stale := [bucket for bucket, reply in zip(after, replies, strict=True) if not reply]:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")

    def _merge_logins(self, written: SliceWrites) -> dict[tuple[str, str], bytes]:
        """The records of logins after a batch, those that it changes.

        They are read before the script that writes them: only the owner of a source does, and the script checks that it
        still is.
        """
        groups = group_logins(written.logins)
        if not groups:
            return {}
        keys = self.keys.histories([entity for entity, _ in groups])
        fields = [LOGINS + source for _, source in groups]
        entities = [entity for entity, _ in groups]
        try:
            held = self.client.pipeline([("HGET", key, field) for key, field in zip(keys, fields, strict=True)])
            merged = [add_logins(record or b"", logins) for record, logins in zip(held, groups.values(), strict=True)]
        except (WrongType, BadProfile) as error:
            raise UnreadableProfiles(f"Logins should be readable. Found: {error}", entities) from error
        return {name: record for name, record, former in zip(groups, merged, held, strict=True) if record != former}

    @property
    def log_starts_key(self) -> str:
        return f"{self.prefix}begins"

    def _query_offsets(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to commands on merged offsets; a key of another type counts as lost."""
        while True:
            try:
                return self._query(commands)
            except WrongType as error:
                if error.key not in [command[1] for command in commands]:
                    raise
                self._delete_other_type(error.key, "merged")

    def _delete_unreadable_offsets(self, read: Sequence[Mapping[str, bytes]]) -> None:
        """Delete offsets that are no numbers: they count as lost."""
        commands = [
            ("HDEL", self.keys.offsets(bucket), source)
            for bucket, offsets in enumerate(read)
            for source, offset in offsets.items()
            if not is_offset(offset)
        ]
        if commands:
            log.error("Deleted %d merged offsets that are no numbers; events are folded again.", len(commands))
            self.client.pipeline(commands)
            metrics.UNREADABLE_KEYS.labels("merged").inc(len(commands))

    def _delete_other_type(self, key: str, kind: str) -> None:
        log.error("Deleting %s, which should be a hash.", key)
        metrics.UNREADABLE_KEYS.labels(kind).inc(self.client.delete_other_type(key, "hash"))

    def _query(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to commands; raises `StaleState` if another generation serves after they were executed.

        This is checked last: while a generation serves its keys are complete, and they are deleted only afterwards.
        """
        if self.generations is None:
            return self.client.pipeline(commands)
        *replies, reply = self.client.pipeline_then(commands, self.generations.serving_command)
        self._check_generation(reply)
        return replies

    def _check_generation(self, reply: bytes | None) -> None:
        """Raise `StaleState` if the reply to `Generations.serving_command` names another generation."""
        if self.generations is not None and (name := parse_generation(reply)) != self.generation:
            raise StaleState(f"Generation `{self.generation}` of the state should serve. Found that `{name}` does.")

    @property
    def prefix(self) -> str:
        return self.keys.prefix


def is_offset(value: bytes) -> bool:
    """Whether a stored offset is a number that Kafka can have."""
    return value.isdigit() and int(value) <= OFFSET_MAX


def check_layouts(records: memoryview) -> None:
    """Raises `BadProfile` unless all records have this layout. Their lengths are checked."""
    layouts = np.frombuffer(records, "<u4")[:: RECORD.itemsize // 4]
    if (layouts != LAYOUT).any():
        raise BadProfile(f"A slice should have layout {LAYOUT}. Found others.")


def open_profile_store(client: RedisClient, prefix: str) -> RedisProfileStore:
    """The profiles of the serving generation."""
    return RedisProfileStore(client=client, prefix=prefix, generations=Generations(client=client, prefix=prefix))


def name_sources(
    partitions: Iterable[TopicPartition],
    kinds: Mapping[str, str],
    topic_ids: Mapping[str, str],
    added: Container[str] = (),
) -> dict[TopicPartition, str]:
    """The source of each partition; `kinds` and `topic_ids` are by topic. `added`: topics that maps add to a kind's."""
    return {
        p: source_name(kinds[p.topic], topic_ids.get(p.topic), p.partition, p.topic if p.topic in added else "")
        for p in partitions
    }


def locate_sources(
    topics: EventTopics,
    kinds: Iterable[str],
    partitions: Iterable[TopicPartition],
    topic_ids: Mapping[str, str],
) -> dict[str, TopicPartition]:
    """The partition of each source of these kinds; a topic with several kinds is a source of each."""
    known, sources = list(partitions), dict[str, TopicPartition]()
    for kind in kinds:
        folded = topics.kinds_folded([kind])
        names = name_sources([p for p in known if p.topic in folded], folded, topic_ids, topics.added)
        sources |= {source: partition for partition, source in names.items()}
    return sources


def source_name(kind: str, topic_id: str | None, partition: int, added_topic: str = "") -> str:
    """The source of one partition's slices: a recreated topic has another id, hence other sources.

    Without ids, a topic that a map adds to the one of its kind goes by its name.
    """
    ident = f"~{re.sub('[^A-Za-z0-9_-]', '', topic_id)}" if topic_id else f"~={added_topic}" if added_topic else ""
    return f"{kind}{ident}/{partition}"
