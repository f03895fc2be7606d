"""Profiles in Redis: read whole; written per bucket together with its merged offsets, guarded by the former ones."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.errors import BadProfile, StaleState
from contract.hashing import BUCKETS, bucket_of, buckets_of, hash_texts
from contract.mapping.event_topics import EventTopics
from contract.profiles.histories import Histories, LoadedHistories, history_key_prefix
from contract.profiles.record import HORIZON_MS, LAYOUT, RECORD, entity_from_key, profile_key_prefix
from contract.profiles.slices import LoadedSlices, Slices, SliceWrites, check_lengths, to_slice_writes
from contract.profiles.store import MergedOffsets
from contract.redis_keys import escape_entities, escape_entity, escape_ids
from contract.units import DAY_MS
from transport.records import TopicPartition
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType, to_pairs
from worker.state.generations import FIRST, Generations, generation_prefix, parse_generation
from worker.state.merge_script import MERGE, PackedHistories

log = logging.getLogger(__name__)

# KEYS: merged:{bucket}, then profiles of that bucket. Returns the fields of each; one script, so all of one moment.
READ_PAGE: Final = """
local hashes = {}
for n = 1, #KEYS do hashes[n] = redis.call('HGETALL', KEYS[n]) end
return hashes
"""
PAGE_KEYS: Final = 64  # Redis serves no other command while it copies them
# Redis' expiry only collects garbage, so it exceeds the fold's horizon by the longest expected retention.
TTL_MS: Final = HORIZON_MS + 30 * DAY_MS
RETENTION_MIN_MS: Final = TTL_MS - 3 * DAY_MS  # a profile stays at least this long after a write
OFFSET_MAX: Final = 2**63 - 1
NO_SOURCE: Final = 0xFFFF << 16


class ProfilePage(NamedTuple):
    """Profiles and histories of one bucket by key (without the prefix), and its merged offsets at the same moment."""

    merged: Mapping[str, int]
    profiles: Mapping[str, Slices]
    histories: Mapping[str, Histories]  # of users, by the key of the profile


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
        self._set_prefix(prefix)

    def refresh_generation(self) -> None:
        """Switch to the serving generation; raises `BadProfile` where only other layouts have a state."""
        if self.generations is not None and (name := self.generations.open()) != self.generation:
            log.info("Switching to state generation %s.", name or "1 (unnamed)")
            self.generation = name
            self._set_prefix(generation_prefix(self.generations.prefix, name))

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

    def read(self, entities: Sequence[str]) -> LoadedSlices:
        # One HGETALL each: in a script Redis would copy every slice twice more, into Lua and out again.
        command = None if self.generations is None else self.generations.serving_command
        try:
            hashes, reply = self.client.read_hashes(self.profile_keys(entities), command)
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
            hashes, reply = self.client.read_hashes(self.history_keys(users), command)
            self._check_generation(reply)
            histories = LoadedHistories(
                len(users), hashes.names, hashes.hash_index, hashes.name_index, hashes.lengths, bytes(hashes.values)
            )
            histories.check()
        except (WrongType, BadProfile) as error:
            raise UnreadableProfiles(f"Histories should be readable. Found: {error}", users) from error
        return histories

    def scan(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Slices]]:
        """The key (without the prefix) and the slices of each wanted entity's profile; see `scan_pages`."""
        for page in self.scan_pages(wanted):
            yield from page.profiles.items()

    def scan_pages(
        self,
        wanted: Callable[[str], bool],
        kind: str = "profile",
        is_known: Callable[[str], bool] = lambda _: False,
    ) -> Iterator[ProfilePage]:
        """The profiles of wanted entities, unchecked, in pages of one bucket each.

        `kind`: the keys to scan, `profile` or `history`: the profiles of users with a history, absent ones too.
        `is_known`: whether to leave out the profile under a key (without the prefix). What exists during the whole scan
        is returned at least once; a later page replaces an earlier one.
        """
        keys_by_tag = defaultdict[str, list[str]](list)
        for page in self.client.scan(f"{self.prefix}{kind}:"):
            keys = page if kind == "profile" else [key for own in page if (key := self._profile_key_of(own))]
            for key in keys:
                if wanted(entity_from_key(key)) and not is_known(key.removeprefix(self.prefix)):
                    keys_by_tag[hash_tag(key, self.prefix)].append(key)
            full = {tag: keys_by_tag.pop(tag) for tag, keys in list(keys_by_tag.items()) if len(keys) >= PAGE_KEYS}
            yield from self._read_pages(full)
        yield from self._read_pages(keys_by_tag)

    def _read_pages(self, keys_by_tag: Mapping[str, Sequence[str]]) -> Iterator[ProfilePage]:
        for tag, all_keys in keys_by_tag.items():
            for start in range(0, len(all_keys), PAGE_KEYS):
                keys = all_keys[start : start + PAGE_KEYS]
                histories = {key: own for key in keys if (own := self._history_key_of(key))}
                all_of_page = [f"{self.prefix}merged:{tag}", *keys, *histories.values()]
                (reply,) = self.client.run_script(READ_PAGE, [(all_of_page, [])])
                offsets, *hashes = [to_pairs(fields) for fields in reply]
                named = [
                    (key.removeprefix(self.prefix), {source.decode(): record for source, record in pairs})
                    for key, pairs in zip([*keys, *histories], hashes, strict=True)
                ]
                yield ProfilePage(
                    merged={source.decode(): int(offset) for source, offset in offsets if is_offset(offset)},
                    profiles=dict(named[: len(keys)]),
                    histories={key: own for key, own in named[len(keys) :] if own},
                )

    def _history_key_of(self, profile_key: str) -> str | None:
        """The key of the history that goes with a profile under this key; None for one that is not of a user."""
        match = re.fullmatch(r"profile:(\{[^{}]+\}):user:(.*)", profile_key.removeprefix(self.prefix))
        return f"{self.prefix}history:{match[1]}:{match[2]}" if match else None

    def _profile_key_of(self, history_key: str) -> str | None:
        match = re.fullmatch(r"history:(\{[^{}]+\}):(.*)", history_key.removeprefix(self.prefix))
        return f"{self.prefix}profile:{match[1]}:user:{match[2]}" if match else None

    def read_offsets(self, sources: Iterable[str]) -> MergedOffsets:
        wanted = sorted(sources)
        if not wanted:
            return {bucket: {} for bucket in range(BUCKETS)}
        replies = self._query_offsets([("HMGET", self.offsets_key(bucket), *wanted) for bucket in range(BUCKETS)])
        read = [{s: offset for s, offset in zip(wanted, reply, strict=True) if offset is not None} for reply in replies]
        self._delete_unreadable_offsets(read)
        return {
            bucket: {source: int(offset) for source, offset in offsets.items() if is_offset(offset)}
            for bucket, offsets in enumerate(read)
        }

    def read_merged_sources(self, bucket: int) -> set[str]:
        """The sources that have a merged offset in a bucket."""
        (sources,) = self._query_offsets([("HKEYS", self.offsets_key(bucket))])
        return {source.decode(errors="replace") for source in sources}

    def merge(self, writes: Mapping[str, Slices], expected: MergedOffsets, after: MergedOffsets) -> None:
        written = to_slice_writes(writes)
        bounds = np.searchsorted(written.bucket, np.arange(BUCKETS + 1))
        keys, number = self._number_keys(written)
        key_numbers, records = number[:-1] - number[bounds[written.bucket]], memoryview(written.records)
        addresses: dict[tuple[str, ...], bytes] = {}  # of all slices, by list of sources, mostly one
        histories = PackedHistories(written, bounds)
        history_users = [written.entities[entity] for entity in written.entity[written.histories.slice].tolist()]
        history_keys = self.history_keys(history_users, written.bucket[written.histories.slice].tolist())
        calls = []
        for bucket, positions in after.items():
            first, last = int(bounds[bucket]), int(bounds[bucket + 1])
            sources, expected_offsets = tuple(positions), expected.get(bucket, {})
            if sources not in addresses:
                packed = key_numbers + pack_source_indexes(written.sources, sources)[written.source]
                addresses[sources] = packed.astype("<u4").tobytes()
            guards = chain.from_iterable(
                [(source, expected_offsets.get(source, ""), offset) for source, offset in positions.items()]
            )
            slices = bytes(records[first * RECORD.itemsize : last * RECORD.itemsize])
            arguments = [
                TTL_MS,
                RETENTION_MIN_MS,
                len(positions),
                *guards,
                addresses[sources][4 * first : 4 * last],
                slices,
                *histories.arguments(bucket),
            ]
            begin, end = histories.range(bucket)
            own_keys = [*keys[number[first] : number[last]], *history_keys[begin:end]]
            calls.append(([self.offsets_key(bucket), *own_keys], arguments))
        replies = self.client.run_script(MERGE, calls)
        unreadable = [
            history_users[histories.range(bucket)[0] + reply[0] - 1]
            for bucket, reply in zip(after, replies, strict=True)
            if isinstance(reply, list)
        ]
        if unreadable:
            raise UnreadableProfiles(f"Histories should be readable. Found {len(unreadable)} that are not.", unreadable)
        if stale := [bucket for bucket, reply in zip(after, replies, strict=True) if not reply]:
            raise StaleState(f"Buckets {stale} should be merged as this worker left them. Found other positions.")

    def offsets_key(self, bucket: int) -> str:
        return f"{self.prefix}merged:{{{bucket}}}"

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
            ("HDEL", self.offsets_key(bucket), source)
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

    def _set_prefix(self, prefix: str) -> None:
        self.prefix = prefix
        self._key_prefixes = [f"{prefix}{profile_key_prefix(bucket)}" for bucket in range(BUCKETS)]
        self._history_prefixes = [f"{prefix}{history_key_prefix(bucket)}" for bucket in range(BUCKETS)]

    def _number_keys(self, written: SliceWrites) -> tuple[list[str], npt.NDArray[np.int64]]:
        """The distinct keys of W slices, and the index of each slice's key (W+1); the last one is their number."""
        is_first = np.diff(written.entity, prepend=-1) != 0
        entities, buckets = written.entity[is_first].tolist(), written.bucket[is_first].tolist()
        parts = escape_entities([written.entities[entity] for entity in entities])
        keys = [self._key_prefixes[bucket] + part for bucket, part in zip(buckets, parts, strict=True)]
        return keys, np.append(np.cumsum(is_first) - 1, len(keys))

    def profile_keys(self, entities: Sequence[str]) -> list[str]:
        """The keys of entities' profiles."""
        buckets = buckets_of(hash_texts(entities)).tolist()
        parts = escape_entities(entities)
        return [self._key_prefixes[bucket] + part for bucket, part in zip(buckets, parts, strict=True)]

    def history_keys(self, users: Sequence[str], buckets: Sequence[int] | None = None) -> list[str]:
        """The keys of the histories of users (`user:ID`), whose `buckets` may be known."""
        prefixes = self._history_prefixes
        parts = escape_ids([user[len("user:") :] for user in users])
        buckets = buckets_of(hash_texts(users)).tolist() if buckets is None else buckets
        return [prefixes[bucket] + part for bucket, part in zip(buckets, parts, strict=True)]

    def profile_key(self, entity: str) -> str:
        """The key of an entity's profile."""
        return self._key_prefixes[bucket_of(entity)] + escape_entity(entity)


def is_offset(value: bytes) -> bool:
    """Whether a stored offset is a number that Kafka can have."""
    return value.isdigit() and int(value) <= OFFSET_MAX


def check_layouts(records: memoryview) -> None:
    """Raises `BadProfile` unless all records have this layout. Their lengths are checked."""
    layouts = np.frombuffer(records, "<u4")[:: RECORD.itemsize // 4]
    if (layouts != LAYOUT).any():
        raise BadProfile(f"A slice should have layout {LAYOUT}. Found others.")


def pack_source_indexes(sources: Sequence[str], positions: Sequence[str]) -> npt.NDArray[np.int64]:
    """The packed index of each source among `positions`; a slice of a source that is not among them is refused."""
    packed = {source: number << 16 for number, source in enumerate(positions)}
    return np.array([packed.get(source, NO_SOURCE) for source in sources], np.int64)


def hash_tag(key: str, prefix: str) -> str:
    """The braces in a profile's key, by which a cluster places it; one without is placed by its whole name."""
    match = re.match(r"profile:(\{[^{}]+\}):", key.removeprefix(prefix))
    return match[1] if match else f"{{{key}}}"


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
