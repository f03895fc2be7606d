"""The laws of profiles with erasures in the log: what is forgotten depends on the log alone, nobody else forgets."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from contract.events import Erasure
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from contract.profiles.slices import Slices
from testkit.oracle.aggregates import recent_links
from testkit.oracle.feeder import ProfileFeeder, list_entities, read_slices, split_batches
from testkit.oracle.logs import SOURCES, draw_erasures, draw_logs, latest_erasures, make_oracle
from testkit.oracle.profiles import ProfileOracle
from tests.contract.conftest import NewStore
from tests.contract.test_profile_laws import features_as_bytes, find_differences

examples = settings(max_examples=30)


@st.composite
def logs_with_erasures(draw: st.DrawFn) -> tuple[list[Arrival], list[Erasure]]:
    """A log, and erasures of some of its people."""
    arrivals = draw(draw_logs())
    return arrivals, draw(draw_erasures(arrivals))


def non_empty_slices(store_slices: dict[str, Slices]) -> dict[str, dict[str, bytes]]:
    return {entity: dict(of) for entity, of in store_slices.items()}


@given(log=logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1), data=st.data())
@examples
def test_the_fold_agrees_with_the_oracle_for_any_cut_any_order_and_any_suffix_read_again(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int], data: st.DataObject
) -> None:
    # given
    arrivals, erasures = log
    order = data.draw(st.permutations(SOURCES))
    in_order = sorted(arrivals, key=lambda arrival: order.index(arrival.source))
    again = data.draw(st.integers(0, len(arrivals) - 1))
    store = new_store()
    # when several owners read the log, the erasures having come in any order
    first = ProfileFeeder(store, Erasures(data.draw(st.permutations(erasures))))
    for batch in split_batches(in_order, itertools.cycle(sizes)):
        first.feed(batch)
    ProfileFeeder(store, Erasures(erasures)).feed(arrivals[again:])
    # then
    actual = non_empty_slices(read_slices(store, list_entities(arrivals)))
    assert find_differences(make_oracle(arrivals, erasures), actual) == []


@given(log=logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_what_events_know_is_bit_equal_however_the_log_was_cut_and_names_nobody_erased(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int]
) -> None:
    # given
    arrivals, erasures = log
    at_once = ProfileFeeder(new_store(), Erasures(erasures)).feed(arrivals)
    feeder, oracle = ProfileFeeder(new_store(), Erasures(erasures)), ProfileOracle(latest_erasures(erasures))
    # when
    in_parts = []
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        in_parts.append(memory := feeder.feed(batch))
        # then
        touches = memory.updates
        for number, (source, offset, event, *_) in enumerate(batch):
            for touch in range(touches.start[number], touches.start[number + 1]):
                before = oracle.slices_of(touches.entities[touches.entity[touch]])
                assert memory.recent_ids[touch].tolist() == recent_links(before, oracle.erased_until)
            oracle.add(source, offset, event)
    assert features_as_bytes(in_parts) == features_as_bytes([at_once])


@given(log=logs_with_erasures())
@examples
def test_all_but_the_erased_people_s_own_profiles_stay_byte_for_byte(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]]
) -> None:
    # given
    arrivals, erasures = log
    store, unaware, entities = new_store(), new_store(), list_entities(arrivals)
    # when
    ProfileFeeder(store, Erasures(erasures)).feed(arrivals)
    ProfileFeeder(unaware).feed(arrivals)
    # then
    others = [entity for entity in entities if entity not in latest_erasures(erasures)]
    assert read_slices(store, others) == read_slices(unaware, others)
