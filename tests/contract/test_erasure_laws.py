"""The laws of profiles with erasures in the log: what is forgotten depends on the log alone, nobody else forgets."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from contract.erasures import Erasures
from contract.events import Erasure
from contract.slices import Slices
from contract.touches import Arrival
from tests.contract.conftest import NewStore
from tests.contract.test_profile_laws import differences, knowledge
from tests.oracle.feeding import Feeder, cut, entities_of, slices_of
from tests.oracle.logs import SOURCES, erasures_of, forgotten, logs, oracle_of
from tests.oracle.profiles import Oracle
from tests.oracle.reading import recent

examples = settings(max_examples=30)


@st.composite
def erased_logs(draw: st.DrawFn) -> tuple[list[Arrival], list[Erasure]]:
    """A log, and erasures of some of its people."""
    arrivals = draw(logs())
    return arrivals, draw(erasures_of(arrivals))


def remembered(store_slices: dict[str, Slices]) -> dict[str, dict[str, bytes]]:
    return {entity: dict(of) for entity, of in store_slices.items()}


@given(log=erased_logs(), sizes=st.lists(st.integers(1, 9), min_size=1), data=st.data())
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
    first = Feeder(store, Erasures(data.draw(st.permutations(erasures))))
    for batch in cut(in_order, itertools.cycle(sizes)):
        first.feed(batch)
    Feeder(store, Erasures(erasures)).feed(arrivals[again:])
    # then
    found = remembered(slices_of(store, entities_of(arrivals)))
    assert differences(oracle_of(arrivals, erasures), found) == []


@given(log=erased_logs(), sizes=st.lists(st.integers(1, 9), min_size=1))
@examples
def test_what_events_know_is_bit_equal_however_the_log_was_cut_and_names_nobody_erased(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], sizes: list[int]
) -> None:
    # given
    arrivals, erasures = log
    at_once = Feeder(new_store(), Erasures(erasures)).feed(arrivals)
    feeder, oracle = Feeder(new_store(), Erasures(erasures)), Oracle(forgotten(erasures))
    # when
    in_parts = []
    for batch in cut(arrivals, itertools.cycle(sizes)):
        in_parts.append(memory := feeder.feed(batch))
        # then
        touches = memory.touches
        for number, (source, offset, event, *_) in enumerate(batch):
            for touch in range(touches.start[number], touches.start[number + 1]):
                before = oracle.of(touches.entities[touches.entity[touch]])
                assert memory.recent[touch].tolist() == recent(before, oracle.forgotten)
            oracle.tell(source, offset, event)
    assert knowledge(in_parts) == knowledge([at_once])


@given(log=erased_logs())
@examples
def test_all_but_the_erased_people_s_own_profiles_stay_byte_for_byte(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]]
) -> None:
    # given
    arrivals, erasures = log
    store, unaware, entities = new_store(), new_store(), entities_of(arrivals)
    # when
    Feeder(store, Erasures(erasures)).feed(arrivals)
    Feeder(unaware).feed(arrivals)
    # then
    others = [entity for entity in entities if entity not in forgotten(erasures)]
    assert slices_of(store, others) == slices_of(unaware, others)
