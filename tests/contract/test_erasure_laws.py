"""Laws of profiles with erasures: they depend only on the log and change only the erased users' own slices."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from contract.events import Erasure
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from testkit.oracle.aggregates import recent_links
from testkit.oracle.feeder import ProfileFeeder, features_as_bytes, list_entities, read_slices, split_batches
from testkit.oracle.logs import SOURCES, draw_logs_with_erasures, latest_erasures, make_oracle
from testkit.oracle.profiles import ProfileOracle
from testkit.oracle.records import find_differences
from tests.contract.conftest import NewStore

examples = settings(max_examples=30)


@given(log=draw_logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1), data=st.data())
@examples
def test_the_fold_agrees_with_the_oracle_for_any_batches_order_and_replay(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int], data: st.DataObject
) -> None:
    # given
    arrivals, erasures = log
    order = data.draw(st.permutations(SOURCES))
    in_order = sorted(arrivals, key=lambda arrival: order.index(arrival.source))
    restart = data.draw(st.integers(0, len(arrivals) - 1))
    store = new_store()
    # when several owners read the log, with the erasures in any order
    first = ProfileFeeder(store, Erasures(data.draw(st.permutations(erasures))))
    for batch in split_batches(in_order, itertools.cycle(sizes)):
        first.feed(batch)
    ProfileFeeder(store, Erasures(erasures)).feed(arrivals[restart:])
    # then
    actual = read_slices(store, list_entities(arrivals))
    assert find_differences(make_oracle(arrivals, erasures), actual) == []


@given(log=draw_logs_with_erasures(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_aggregates_do_not_depend_on_batch_sizes_and_name_no_erased_users(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int]
) -> None:
    # given
    arrivals, erasures = log
    at_once = ProfileFeeder(new_store(), Erasures(erasures)).feed(arrivals)
    feeder, oracle = ProfileFeeder(new_store(), Erasures(erasures)), ProfileOracle(latest_erasures(erasures))
    # when
    in_parts = []
    for batch in split_batches(arrivals, itertools.cycle(sizes)):
        in_parts.append(folded := feeder.feed(batch))
        # then
        updates = folded.updates
        for number, (source, offset, event, *_) in enumerate(batch):
            for update in range(updates.start[number], updates.start[number + 1]):
                before = oracle.slices_of(updates.entities[updates.entity[update]])
                assert folded.recent_ids[update].tolist() == recent_links(before, oracle.erased_until)
            oracle.add(source, offset, event)
    assert features_as_bytes(in_parts) == features_as_bytes([at_once])


@given(log=draw_logs_with_erasures())
@examples
def test_only_profiles_of_erased_users_change(new_store: NewStore, log: tuple[list[Arrival], list[Erasure]]) -> None:
    # given
    arrivals, erasures = log
    store, store_without_erasures, entities = new_store(), new_store(), list_entities(arrivals)
    # when
    ProfileFeeder(store, Erasures(erasures)).feed(arrivals)
    ProfileFeeder(store_without_erasures).feed(arrivals)
    # then
    others = [entity for entity in entities if entity not in latest_erasures(erasures)]
    assert read_slices(store, others) == read_slices(store_without_erasures, others)
