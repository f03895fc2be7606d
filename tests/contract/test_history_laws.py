"""Laws of histories (batching, replay, crashes, order of sources, erasures), for every store, against the oracle."""

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import StaleState
from contract.events.model import Erasure
from contract.hashing import BUCKETS, bucket_of
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.erasures import Erasures
from contract.profiles.histories import HISTORY_MAX, append_history, load_histories
from contract.profiles.store import ProfileStore, fold
from testkit.oracle.feeder import ProfileFeeder, list_entities, read_histories, split_batches
from testkit.oracle.logs import (
    STEPS_MS,
    EventGenerator,
    draw_logs_with_erasures,
    make_log,
    make_oracle,
)
from testkit.oracle.profiles import HORIZON_MS
from testkit.oracle.records import find_history_differences, parse_history
from tests.contract.conftest import NewStore

SOURCES = ("clicks/0", "clicks/1", "orders/0", "orders/1", "searches/0")
examples = settings(max_examples=30, deadline=None)


class FewUsers(EventGenerator):
    """Few users, so that their histories are longer than is kept."""

    def draw_id(self, kind: str, count: int) -> str:
        return super().draw_id(kind, 3 if kind == "u" else 300 if kind == "i" else count)


def make_long_log(seed: int, size: int) -> list[Arrival]:
    """Events of three users, seconds apart, sometimes backwards, and seldom past the horizon."""
    rng = random.Random(seed)
    usual = (0, 1, 999, 30_000, -90_000)
    steps = [HORIZON_MS + 1 if rng.random() < 0.003 else rng.choice(usual) for _ in range(size)]
    return make_log(FewUsers(rng), [(rng.choice(SOURCES), step_ms) for step_ms in steps])


@st.composite
def draw_histories(draw: st.DrawFn) -> list[Arrival]:
    step = st.tuples(st.sampled_from(SOURCES), st.sampled_from(STEPS_MS), st.sampled_from((1, 1, 1, -1)))
    steps = draw(st.lists(step, min_size=1, max_size=60))
    generator = FewUsers(random.Random(draw(st.integers(0, 2**32))))
    return make_log(generator, [(source, step_ms * sign) for source, step_ms, sign in steps])


def feed(store: ProfileStore, batches: Sequence[Sequence[Arrival]]) -> dict[str, dict[str, bytes]]:
    """The histories after these batches."""
    feeder = ProfileFeeder(store)
    for batch in batches:
        feeder.feed(batch)
    return read_histories(store, list_entities(list(itertools.chain.from_iterable(batches))))


@given(arrivals=draw_histories(), sizes=st.lists(st.integers(1, 20), min_size=1))
@examples
def test_histories_agree_with_the_oracle_however_the_log_is_cut(
    new_store: NewStore, arrivals: list[Arrival], sizes: list[int]
) -> None:
    # when
    whole = feed(new_store(), [arrivals])
    parts = feed(new_store(), list(split_batches(arrivals, itertools.cycle(sizes))))
    # then
    assert find_history_differences(make_oracle(arrivals), whole) == []
    assert parts == whole


def test_batches_of_1_7_and_1000_events_give_the_same_histories(new_store: NewStore, seed: int) -> None:
    # given a log with more entries than are kept
    arrivals = make_long_log(seed, 800)
    # when
    outcomes = [feed(new_store(), list(split_batches(arrivals, itertools.repeat(size)))) for size in (1, 7, 1_000)]
    # then
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert find_history_differences(make_oracle(arrivals), outcomes[0]) == []
    lengths = [len(parse_history(record)) for own in outcomes[0].values() for record in own.values()]
    assert max(lengths) == HISTORY_MAX


@given(arrivals=draw_histories(), data=st.data())
@examples
def test_reading_any_suffix_again_adds_no_entry(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given
    store = new_store()
    once = feed(store, [arrivals])
    # when buckets are set back, as after an erasure, and a suffix is read again
    start = data.draw(st.integers(0, len(arrivals) - 1))
    offsets = store.read_offsets(SOURCES)
    lowered = {bucket: dict.fromkeys(offsets.get(bucket, {}), 0) for bucket in range(BUCKETS)}
    store.merge({}, offsets, lowered)
    ProfileFeeder(store).feed(arrivals[start:])
    # then
    assert read_histories(store, list_entities(arrivals)) == once


@given(arrivals=draw_histories(), data=st.data())
@examples
def test_a_crash_between_two_buckets_costs_no_entry_and_adds_none(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given a worker that crashes when only some buckets of its batch are written
    store, clean = new_store(), new_store()
    expected = feed(clean, [arrivals])
    end = data.draw(st.integers(1, len(arrivals)))
    updates = to_updates(arrivals[:end])
    writes = fold(store.read(updates.entities), updates).slice_writes()
    written = data.draw(st.sets(st.sampled_from(sorted({bucket_of(entity) for entity in updates.entities} or {0}))))
    first = ProfileFeeder(store)
    store.merge(writes.select(written), first.merged, first.positions_after(arrivals[:end], written))
    # when the next worker reads the log from the start
    second = ProfileFeeder(store)
    for batch in split_batches(arrivals, itertools.repeat(7)):
        second.feed(batch)
    # then
    assert read_histories(store, list_entities(arrivals)) == expected


def test_a_stale_bucket_gets_no_entry(new_store: NewStore, seed: int) -> None:
    # given two workers with the same state, one of which has written to a user's bucket since
    arrivals = make_long_log(seed, 100)
    store = new_store()
    before = feed(store, [arrivals[:50]])
    zombie = ProfileFeeder(store)
    user = next(iter(before))
    store.merge({}, store.read_offsets(SOURCES), {bucket_of(user): {"clicks/0": 10_000, "orders/0": 10_000}})
    # when
    with pytest.raises(StaleState):
        zombie.feed(arrivals[50:])
    # then
    assert read_histories(store, [user])[user] == before[user]


@given(log=draw_logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_erased_events_are_no_entries(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int]
) -> None:
    # given
    arrivals, erasures = log
    store = new_store()
    feeder = ProfileFeeder(store, Erasures(erasures))
    # when
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        feeder.feed(batch)
    # then
    actual = read_histories(store, list_entities(arrivals))
    assert find_history_differences(make_oracle(arrivals, erasures), actual) == []


def test_the_latest_items_are_in_order_of_time_whatever_order_the_store_has_its_sources_in(
    new_store: NewStore, seed: int
) -> None:
    # given
    arrivals = make_long_log(seed, 500)
    store = new_store()
    feed(store, [arrivals])
    users = [*reversed([entity for entity in list_entities(arrivals) if entity.startswith("user:")]), "user:unknown"]
    histories = store.read_histories(users)
    # when
    latest = histories.latest()
    # then
    for number, own in enumerate(histories):
        entries = [
            (seen_s, source, place, item, action)
            for source, record in own.items()
            for place, (item, seen_s, action) in enumerate(parse_history(record))
        ]
        newest = sorted(entries, reverse=True)[:HISTORY_MAX]
        padded = [(item, action, seen_s) for seen_s, _, _, item, action in newest] + [(0, 0, 0)] * HISTORY_MAX
        columns = latest.items[number], latest.actions[number], latest.seen_s[number]
        assert list(zip(*(column.tolist() for column in columns), strict=True)) == padded[:HISTORY_MAX]
    # and sources in another order give the same
    other = load_histories([dict(reversed(list(own.items()))) for own in histories]).latest()
    assert [column.tolist() for column in latest] == [column.tolist() for column in other]


@given(entries=st.lists(st.binary(min_size=13, max_size=13), min_size=1, max_size=200), data=st.data())
@settings(deadline=None)
def test_appending_in_parts_gives_the_bytes_of_appending_at_once(entries: list[bytes], data: st.DataObject) -> None:
    # given
    cuts = sorted(data.draw(st.sets(st.integers(1, len(entries)), max_size=5)) | {len(entries)})
    # when
    record, start = b"", 0
    for end in cuts:
        record, start = append_history(record, b"".join(entries[start:end])), end
    # then
    assert record == append_history(b"", b"".join(entries))
    assert record[4:] == b"".join(entries[-HISTORY_MAX:])
