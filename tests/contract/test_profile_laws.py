"""The laws of profiles (batching, replay, order, knowledge, the guard), over every store and beside the oracle."""

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
from contract.profiles.store import FoldedBatch, fold
from testkit.oracle.aggregates import read_aggregates, recent_links
from testkit.oracle.feeder import ProfileFeeder, list_entities, read_slices, split_batches
from testkit.oracle.logs import SOURCES, draw_logs, make_oracle, make_random_log
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import first_difference
from tests.contract.conftest import NewStore

examples = settings(max_examples=40)


def features_as_bytes(memories: list[FoldedBatch]) -> bytes:
    """Every bit of what the events of some batches knew."""
    return b"".join(memory.aggregates_before.tobytes() for memory in memories) + b"".join(
        m.recent_ids.tobytes() for m in memories
    )


def find_differences(oracle: ProfileOracle, slices: dict[str, dict[str, bytes]]) -> list[str]:
    found = {(entity, source): record for entity, of in slices.items() for source, record in of.items()}
    pairs = sorted(set(found) | set(oracle.slices))
    compared = [(pair, first_difference(oracle.slices.get(pair), found.get(pair))) for pair in pairs]
    return [f"{entity} of {source}: {difference}" for (entity, source), difference in compared if difference]


@given(arrivals=draw_logs())
@examples
def test_the_fold_agrees_with_the_oracle(new_store: NewStore, arrivals: list[Arrival]) -> None:
    # given
    store = new_store()
    # when
    ProfileFeeder(store).feed(arrivals)
    # then
    actual = {entity: dict(of) for entity, of in read_slices(store, list_entities(arrivals)).items()}
    assert find_differences(make_oracle(arrivals), actual) == []


@given(arrivals=draw_logs(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_slices_and_knowledge_are_bit_equal_however_the_log_was_cut(
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


def test_batches_of_1_and_7_and_1000_of_a_long_log_leave_the_same_bits(new_store: NewStore, seed: int) -> None:
    # given
    arrivals = make_random_log(seed, 1_500)
    entities, oracle = list_entities(arrivals), make_oracle(arrivals)
    # when
    outcomes = []
    for size in (1, 7, 1_000):
        store = new_store()
        feeder = ProfileFeeder(store)
        memories = [feeder.feed(batch) for batch in split_batches(arrivals, itertools.repeat(size))]
        outcomes.append((read_slices(store, entities), features_as_bytes(memories)))
    # then
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert find_differences(oracle, {entity: dict(of) for entity, of in outcomes[0][0].items()}) == []


@given(arrivals=draw_logs(), data=st.data())
@examples
def test_feeding_any_suffix_again_changes_nothing(
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
def test_dying_between_two_buckets_and_beginning_again_leaves_one_clean_pass(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given a worker that dies when some buckets of its batch are written and others are not
    store, clean, entities = new_store(), new_store(), list_entities(arrivals)
    ProfileFeeder(clean).feed(arrivals)
    end = data.draw(st.integers(1, len(arrivals)))
    touches = to_updates(arrivals[:end])
    writes = fold(store.read(touches.entities), touches).slice_writes()
    reached = data.draw(st.sets(st.sampled_from(sorted({bucket_of(entity) for entity in entities} or {0}))))
    written = {entity: slices for entity, slices in writes.items() if bucket_of(entity) in reached}
    first = ProfileFeeder(store)
    store.merge(written, first.merged, first.positions_after(arrivals[:end], reached))
    # when the next one reads everything again
    second = ProfileFeeder(store)
    for batch in split_batches(arrivals, itertools.repeat(7)):
        second.feed(batch)
    # then
    assert read_slices(store, entities) == read_slices(clean, entities)


@given(arrivals=draw_logs(), data=st.data())
@examples
def test_slices_do_not_depend_on_the_order_in_which_partitions_are_read(
    new_store: NewStore, arrivals: list[Arrival], data: st.DataObject
) -> None:
    # given the same partitions, read one after the other in any order
    store, other, entities = new_store(), new_store(), list_entities(arrivals)
    order = data.draw(st.permutations(SOURCES))
    sorted_log = sorted(arrivals, key=lambda arrival: order.index(arrival.source))
    now = [max(arrival.event.ts_ms for arrival in arrivals)] * len(entities)
    # when
    memory, other_memory = ProfileFeeder(store).feed(arrivals), ProfileFeeder(other).feed(sorted_log)
    # then
    assert read_slices(store, entities) == read_slices(other, entities)
    for mine, theirs in zip(memory.read_at(entities, now), other_memory.read_at(entities, now), strict=True):
        assert mine.tobytes() == theirs.tobytes()


@given(arrivals=draw_logs(size=25), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_an_event_knows_what_stands_before_it_and_never_itself(
    new_store: NewStore, arrivals: list[Arrival], sizes: list[int]
) -> None:
    # given
    feeder, oracle = ProfileFeeder(new_store()), ProfileOracle()
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        # when
        memory = feeder.feed(batch)
        # then
        touches = memory.updates
        for number, (source, offset, event, *_) in enumerate(batch):
            for touch in range(touches.start[number], touches.start[number + 1]):
                before = oracle.slices_of(touches.entities[touches.entity[touch]])
                should = read_aggregates(before, event.ts_ms)
                np.testing.assert_array_equal(memory.aggregates_before[touch], [should[name] for name in AGGREGATES])
                assert memory.recent_ids[touch].tolist() == recent_links(before)
            oracle.add(source, offset, event)


def test_what_was_not_expected_writes_nothing_of_its_bucket(new_store: NewStore, seed: int) -> None:
    # given two workers that began alike, of which one has written to a single bucket since
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


def test_the_guard_looks_at_each_source_by_itself(new_store: NewStore) -> None:
    # given
    store = new_store()
    store.merge({}, {}, {5: {"orders/0": 7}})
    # when another source is written to the same bucket by somebody who knows nothing of the first
    store.merge({}, {}, {5: {"orders/1": 3}})
    # then
    assert store.read_offsets(["orders/0", "orders/1", "clicks/0"])[5] == {"orders/0": 7, "orders/1": 3}


@pytest.mark.parametrize(("expected", "stands"), [({}, 7), ({5: {"orders/0": 6}}, 7), ({5: {"orders/0": 8}}, 7)])
def test_neither_an_older_nor_a_newer_position_than_expected_is_overwritten(
    new_store: NewStore, expected: dict[int, dict[str, int]], stands: int
) -> None:
    # given
    store = new_store()
    store.merge({}, {}, {5: {"orders/0": stands}})
    # when
    with pytest.raises(StaleState):
        store.merge({}, expected, {5: {"orders/0": 9}})
    # then
    assert store.read_offsets(["orders/0"])[5] == {"orders/0": stands}


def test_lost_positions_are_noticed(new_store: NewStore) -> None:
    # given a store that has forgotten what this worker wrote
    store = new_store()
    # when
    with pytest.raises(StaleState):
        store.merge({}, {5: {"orders/0": 7}}, {5: {"orders/0": 9}})
    # then
    assert store.read_offsets(["orders/0"]).get(5, {}) == {}


def test_the_oracle_notices_one_bit(seed: int, new_store: NewStore) -> None:
    # given
    arrivals = make_random_log(seed, 300)
    store, entities = new_store(), list_entities(arrivals)
    ProfileFeeder(store).feed(arrivals)
    slices = read_slices(store, entities)
    rng = random.Random(seed)
    for entity in rng.sample(sorted(slices), 20):
        for source, record in slices[entity].items():
            # when one bit after the layout's digest is another
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
