"""Laws of profiles (batching, replay, order, aggregates, the merge guard), for every store, against the oracle."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.errors import StaleState
from contract.hashing import bucket_of
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import AGGREGATES
from contract.profiles.store import fold
from testkit.oracle.aggregates import read_aggregates, recent_links
from testkit.oracle.feeder import ProfileFeeder, features_as_bytes, list_entities, read_slices, split_batches
from testkit.oracle.logs import SOURCES, draw_logs, make_oracle, make_random_log
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import find_differences, first_difference
from tests.contract.conftest import NewStore

examples = settings(max_examples=40)


@given(arrivals=draw_logs())
@examples
def test_the_fold_agrees_with_the_oracle(new_store: NewStore, arrivals: list[Arrival]) -> None:
    # given
    store = new_store()
    # when
    ProfileFeeder(store).feed(arrivals)
    # then
    actual = read_slices(store, list_entities(arrivals))
    assert find_differences(make_oracle(arrivals), actual) == []


@given(arrivals=draw_logs(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_slices_and_aggregates_do_not_depend_on_batch_sizes(
    new_store: NewStore, arrivals: list[Arrival], sizes: list[int]
) -> None:
    # given
    whole, parts, entities = new_store(), new_store(), list_entities(arrivals)
    # when
    at_once = [ProfileFeeder(whole).feed(arrivals)]
    feeder = ProfileFeeder(parts)
    in_parts = [feeder.feed(batch) for batch in split_batches(arrivals, itertools.cycle(sizes))]
    # then
    assert read_slices(parts, entities) == read_slices(whole, entities)
    assert features_as_bytes(in_parts) == features_as_bytes(at_once)


def test_batches_of_1_7_and_1000_events_give_the_same_bits(new_store: NewStore, seed: int) -> None:
    # given
    arrivals = make_random_log(seed, 1_500)
    entities, oracle = list_entities(arrivals), make_oracle(arrivals)
    # when
    outcomes = []
    for size in (1, 7, 1_000):
        store = new_store()
        feeder = ProfileFeeder(store)
        batches = [feeder.feed(batch) for batch in split_batches(arrivals, itertools.repeat(size))]
        outcomes.append((read_slices(store, entities), features_as_bytes(batches)))
    # then
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert find_differences(oracle, outcomes[0][0]) == []


@given(arrivals=draw_logs(), data=st.data())
@examples
def test_reading_any_suffix_again_changes_nothing(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given
    store, entities = new_store(), list_entities(arrivals)
    ProfileFeeder(store).feed(arrivals)
    once, merged = read_slices(store, entities), store.read_offsets(SOURCES)
    # when
    start = data.draw(st.integers(0, len(arrivals) - 1))
    ProfileFeeder(store).feed(arrivals[start:])
    # then
    assert read_slices(store, entities) == once
    assert store.read_offsets(SOURCES) == merged


@given(arrivals=draw_logs(), data=st.data())
@examples
def test_a_crash_between_two_buckets_is_repaired_by_replay(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given a worker that crashes when only some buckets of its batch are written
    store, clean, entities = new_store(), new_store(), list_entities(arrivals)
    ProfileFeeder(clean).feed(arrivals)
    end = data.draw(st.integers(1, len(arrivals)))
    updates = to_updates(arrivals[:end])
    writes = fold(store.read(updates.entities), updates).slice_writes()
    written_buckets = data.draw(st.sets(st.sampled_from(sorted({bucket_of(entity) for entity in entities} or {0}))))
    written = {entity: slices for entity, slices in writes.items() if bucket_of(entity) in written_buckets}
    first = ProfileFeeder(store)
    store.merge(written, first.merged, first.positions_after(arrivals[:end], written_buckets))
    # when the next worker reads the log from the start
    second = ProfileFeeder(store)
    for batch in split_batches(arrivals, itertools.repeat(7)):
        second.feed(batch)
    # then
    assert read_slices(store, entities) == read_slices(clean, entities)


@given(arrivals=draw_logs(), data=st.data())
@examples
def test_slices_do_not_depend_on_the_order_of_partitions(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given the same partitions, read one after the other in another order
    store, other, entities = new_store(), new_store(), list_entities(arrivals)
    order = data.draw(st.permutations(SOURCES))
    sorted_log = sorted(arrivals, key=lambda arrival: order.index(arrival.source))
    now = [max(arrival.event.ts_ms for arrival in arrivals)] * len(entities)
    # when
    folded, other_folded = ProfileFeeder(store).feed(arrivals), ProfileFeeder(other).feed(sorted_log)
    # then
    assert read_slices(store, entities) == read_slices(other, entities)
    for actual, expected in zip(folded.read_at(entities, now), other_folded.read_at(entities, now), strict=True):
        assert actual.tobytes() == expected.tobytes()


@given(arrivals=draw_logs(size=25), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_aggregates_before_an_event_exclude_the_event(
    new_store: NewStore, arrivals: list[Arrival], sizes: list[int]
) -> None:
    # given
    feeder, oracle = ProfileFeeder(new_store()), ProfileOracle()
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        # when
        folded = feeder.feed(batch)
        # then
        updates = folded.updates
        for number, (source, offset, event, *_) in enumerate(batch):
            for update in range(updates.start[number], updates.start[number + 1]):
                before = oracle.slices_of(updates.entities[updates.entity[update]])
                expected = read_aggregates(before, event.ts_ms)
                np.testing.assert_array_equal(folded.aggregates_before[update], [expected[name] for name in AGGREGATES])
                assert folded.recent_ids[update].tolist() == recent_links(before)
            oracle.add(source, offset, event)


def test_a_stale_bucket_is_not_written(new_store: NewStore, seed: int) -> None:
    # given two workers with the same state, one of which has written to a single bucket since
    arrivals = make_random_log(seed, 200)
    store, entities = new_store(), list_entities(arrivals)
    ProfileFeeder(store).feed(arrivals[:100])
    zombie = ProfileFeeder(store)
    contested = bucket_of(entities[0])
    owner = {contested: {"clicks/0": 10_000}}
    store.merge({}, store.read_offsets(SOURCES), owner)
    before = read_slices(store, entities)
    # when
    with pytest.raises(StaleState, match=str(contested)):
        zombie.feed(arrivals[100:])
    # then
    after = read_slices(store, entities)
    assert {e: s for e, s in after.items() if bucket_of(e) == contested} == {
        e: s for e, s in before.items() if bucket_of(e) == contested
    }
    assert store.read_offsets(["clicks/0"])[contested] == {"clicks/0": 10_000}
    assert any(after[e] != before.get(e) for e in after), "the other buckets should be written"


def test_the_guard_checks_each_source_separately(new_store: NewStore) -> None:
    # given
    store = new_store()
    store.merge({}, {}, {5: {"orders/0": 7}})
    # when a worker that does not know the first source writes another one to the same bucket
    store.merge({}, {}, {5: {"orders/1": 3}})
    # then
    assert store.read_offsets(["orders/0", "orders/1", "clicks/0"])[5] == {"orders/0": 7, "orders/1": 3}


@pytest.mark.parametrize(("expected", "stored"), [({}, 7), ({5: {"orders/0": 6}}, 7), ({5: {"orders/0": 8}}, 7)])
def test_unexpected_offsets_are_not_overwritten(
    new_store: NewStore, expected: dict[int, dict[str, int]], stored: int
) -> None:
    # given
    store = new_store()
    store.merge({}, {}, {5: {"orders/0": stored}})
    # when
    with pytest.raises(StaleState):
        store.merge({}, expected, {5: {"orders/0": 9}})
    # then
    assert store.read_offsets(["orders/0"])[5] == {"orders/0": stored}


def test_lost_offsets_are_detected(new_store: NewStore) -> None:
    # given a store that has lost what this worker wrote
    store = new_store()
    # when
    with pytest.raises(StaleState):
        store.merge({}, {5: {"orders/0": 7}}, {5: {"orders/0": 9}})
    # then
    assert store.read_offsets(["orders/0"]).get(5, {}) == {}


def test_the_oracle_detects_a_flipped_bit(seed: int, new_store: NewStore) -> None:
    # given
    arrivals = make_random_log(seed, 300)
    store, entities = new_store(), list_entities(arrivals)
    ProfileFeeder(store).feed(arrivals)
    slices = read_slices(store, entities)
    rng = random.Random(seed)
    for entity in rng.sample(sorted(slices), 20):
        for source, record in slices[entity].items():
            # when one bit after the layout's digest is flipped
            bit = rng.randrange(32, len(record) * 8)
            changed = bytearray(record)
            changed[bit // 8] ^= 1 << (bit % 8)
            # then
            assert first_difference(make_oracle(arrivals).slices[entity, source], bytes(changed)) is not None


def test_unknown_ages_are_nan_and_not_zero(new_store: NewStore) -> None:
    # given
    arrivals = make_random_log(1, 1)
    # when
    before = ProfileFeeder(new_store()).feed(arrivals).aggregates_before
    # then
    assert all(math.isnan(value) == name.endswith("_s") for name, value in zip(AGGREGATES, before[0], strict=True))
