"""Erasing slices and folding from the given offsets leaves the state of a log without the erased events."""

import bisect
import itertools
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import Unavailable
from contract.events.model import AHEAD_MS_MAX, Erasure
from contract.hashing import BUCKETS
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from contract.profiles.histories import ENTRY, append_history
from contract.profiles.store import MergedOffsets
from devservers.redis_server import RedisServer
from testkit.oracle.feeder import ProfileFeeder, list_entities, read_histories, read_slices, split_batches
from testkit.oracle.logs import SOURCES, draw_logs_with_erasures, latest_erasures, make_oracle, make_random_log
from testkit.oracle.records import find_differences, find_history_differences
from transport.records import TopicPartition
from worker.erasure.link_sweeper import LinkSweeper
from worker.erasure.slice_eraser import SliceEraser, has_erased_entries
from worker.redis.client import RedisClient
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

SOURCE_BY_PARTITION = {
    TopicPartition(family, int(number)): f"{family}/{number}" for family, number in (s.split("/") for s in SOURCES)
}
NewStore: TypeAlias = Callable[[], RedisProfileStore]


class OffsetsByTime:
    """Kafka times of the records: as early as each event's time allows, and never before the previous record."""

    def __init__(self, arrivals: Sequence[Arrival]) -> None:
        self.times: dict[str, list[tuple[int, int]]] = {source: [] for source in SOURCES}
        for source, offset, event, *_ in arrivals:
            times = self.times[source]
            times.append((max(event.ts_ms - AHEAD_MS_MAX, times[-1][0] if times else 0), offset))

    def offsets_for_time(self, partitions: Iterable[TopicPartition], timestamp_ms: int) -> Mapping[TopicPartition, int]:
        return {
            partition: self.offset_at(self.times[SOURCE_BY_PARTITION[partition]], timestamp_ms)
            for partition in partitions
        }

    @staticmethod
    def offset_at(times: Sequence[tuple[int, int]], ms: int) -> int:
        index = bisect.bisect_left(times, (ms, -1))
        if index < len(times):
            return times[index][1]
        return times[-1][1] + 1 if times else 0


@pytest.fixture(scope="module")
def new_store(redis_server: RedisServer) -> Iterator[NewStore]:
    client = RedisClient(url=redis_server.url, timeout_s=20)
    yield lambda: RedisProfileStore(client=client, prefix=f"{uuid.uuid4().hex}:")
    client.close()
    redis_server.flush()


def fold_log(store: RedisProfileStore, arrivals: Sequence[Arrival], sizes: Iterable[int] = (9,)) -> MergedOffsets:
    """Fold a log without any erasure and advance every bucket; returns the merged offsets."""
    feeder = ProfileFeeder(store)
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        feeder.feed(batch)
    after = feeder.positions_after(arrivals, range(BUCKETS))
    store.merge({}, feeder.merged, after)
    return store.read_offsets(SOURCES)


def fold_remaining(
    store: RedisProfileStore, arrivals: Sequence[Arrival], merged: MergedOffsets, erasures: Erasures
) -> None:
    """Fold the events that some bucket has not merged, as recovery does, now with the erasures."""
    starts = {source: min(positions.get(source, 0) for positions in merged.values()) for source in SOURCES}
    ProfileFeeder(store, erasures).feed([arrival for arrival in arrivals if arrival.offset >= starts[arrival.source]])


def mask_all(store: RedisProfileStore, erasures: Erasures) -> None:
    """Mask all links with erased users, as the owner of all sources does."""
    offsets = OffsetTracker(sources=SOURCE_BY_PARTITION, merged=store.read_offsets(SOURCES))
    sweeper = LinkSweeper(profiles=store, offsets=offsets, erasures=erasures)
    if not all(sweeper.is_swept(partition) for partition in SOURCE_BY_PARTITION):
        while sweeper.step({}) is None:
            pass


@given(log=draw_logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_erasing_and_refolding_equals_a_pass_that_knew_the_erasures(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int], data: st.DataObject
) -> None:
    # given a worker that reads the erasures when part of the log is in Redis
    arrivals, erasures = log
    store = new_store()
    known = Erasures(erasures)
    merged = fold_log(store, arrivals[: data.draw(st.integers(0, len(arrivals)))], sizes)
    eraser = SliceEraser(profiles=store, offsets_at=OffsetsByTime(arrivals).offsets_for_time)
    # when
    eraser.erase(known.until_ms, SOURCE_BY_PARTITION, merged, include_ambiguous=True)
    assert merged == store.read_offsets(SOURCES)
    fold_remaining(store, arrivals, merged, known)
    mask_all(store, known)
    # then
    actual = {entity: dict(slices) for entity, slices in read_slices(store, list_entities(arrivals)).items()}
    assert find_differences(make_oracle(arrivals, erasures), actual) == []
    histories = read_histories(store, list_entities(arrivals))
    assert find_history_differences(make_oracle(arrivals, erasures), histories) == []
    # and a second call has nothing to do
    assert not eraser.erase(known.until_ms, SOURCE_BY_PARTITION, store.read_offsets(SOURCES), include_ambiguous=False)
    after_second = {entity: dict(slices) for entity, slices in read_slices(store, list_entities(arrivals)).items()}
    assert after_second == actual
    assert latest_erasures(erasures) == known.until_ms


def test_a_full_redis_takes_no_part_of_an_erasure(seed: int) -> None:
    # given erased users with later events, and a Redis that deletes and writes nothing new
    arrivals = make_random_log(seed, 200)
    middle_ms = sorted(arrival.event.ts_ms for arrival in arrivals)[100]
    users = sorted({user for arrival in arrivals if (user := getattr(arrival.event, "user_id", None))})
    erasures = [Erasure(event_id=f"e-{user}", ts_ms=middle_ms, user_id=user) for user in users]
    known = Erasures(erasures)
    with RedisServer() as server, closing(RedisClient(url=server.url, timeout_s=20)) as client:
        store = RedisProfileStore(client=client, prefix="full:")
        merged = fold_log(store, arrivals)
        eraser = SliceEraser(profiles=store, offsets_at=OffsetsByTime(arrivals).offsets_for_time)
        client.pipeline([("CONFIG", "SET", "maxmemory", "1")])
        with pytest.raises(Unavailable, match="maxmemory"):
            eraser.erase(known.until_ms, SOURCE_BY_PARTITION, merged, include_ambiguous=True)
        # when it has space again, and the next attempt reads what Redis holds
        client.pipeline([("CONFIG", "SET", "maxmemory", "0")])
        merged = store.read_offsets(SOURCES)
        eraser.erase(known.until_ms, SOURCE_BY_PARTITION, merged, include_ambiguous=True)
        fold_remaining(store, arrivals, merged, known)
        mask_all(store, known)
        # then
        actual = {entity: dict(slices) for entity, slices in read_slices(store, list_entities(arrivals)).items()}
    assert find_differences(make_oracle(arrivals, erasures), actual) == []


def test_entries_whose_slice_is_lost_are_erased(new_store: NewStore, seed: int) -> None:
    # given histories of which the profiles were deleted
    store, arrivals = new_store(), make_random_log(seed, 200)
    merged = fold_log(store, arrivals)
    histories = read_histories(store, list_entities(arrivals))
    user, kept = list(histories)[:2]
    store.client.pipeline([("DEL", store.keys.profile(user)) for user in histories])
    # when
    eraser = SliceEraser(profiles=store, offsets_at=OffsetsByTime(arrivals).offsets_for_time)
    until_ms = max(arrival.event.ts_ms for arrival in arrivals) + 1_000
    eraser.erase({user: until_ms}, SOURCE_BY_PARTITION, merged, include_ambiguous=False)
    # then
    assert read_histories(store, [user]) == {}
    assert read_histories(store, [kept]) == {kept: histories[kept]}


@pytest.mark.parametrize(("until_ms", "is_erased"), [(4_999, False), (5_000, False), (5_998, False), (5_999, True)])
def test_an_entry_is_erased_for_certain_once_its_whole_second_is(until_ms: int, is_erased: bool) -> None:
    record = append_history(b"", np.array([(1, 5, 1)], ENTRY).tobytes())
    assert has_erased_entries(record, until_ms) == is_erased
    assert has_erased_entries(record[:-1], until_ms)
