"""Laws of profiles with erasures: they depend only on the log, and change only slices of erased users and links."""

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.events.model import Erasure
from contract.hashing import BUCKETS
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from contract.profiles.link_masks import mask_erased_links
from contract.profiles.record import RECORD
from contract.profiles.store import ProfileStore
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


@given(log=draw_logs_with_erasures(), data=st.data())
@examples
def test_masked_slices_equal_those_of_a_fold_that_knew_the_erasures(
    new_store: NewStore, log: tuple[list[Arrival], list[Erasure]], data: st.DataObject
) -> None:
    # given a log that is folded while erasures become known, and in between all links are masked
    arrivals, erasures = log
    store, store_that_knew, entities = new_store(), new_store(), list_entities(arrivals)
    count = len(erasures)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), min_size=count, max_size=count)))
    known = Erasures()
    # when
    feeder = ProfileFeeder(store, known)
    for erasure, (start, end) in zip(erasures, itertools.pairwise([0, *cuts]), strict=True):
        feeder.feed(arrivals[start:end])
        known.add(erasure)
        mask_all(store, entities, known)
    feeder.feed(arrivals[cuts[-1] if cuts else 0 :])
    ProfileFeeder(store_that_knew, known).feed(arrivals)
    # then only the slices of erased users differ
    others = [entity for entity in entities if entity not in known.until_ms]
    masked = read_slices(store, others)
    assert masked == read_slices(store_that_knew, others)
    # and no slice names them by events up to the erasure
    erased = known.to_erased_ids()
    assert not any(
        mask_erased_links(np.frombuffer(record, RECORD).copy(), erased).any()
        for slices in masked.values()
        for record in slices.values()
    )


def mask_all(store: ProfileStore, entities: Sequence[str], erasures: Erasures) -> None:
    """Mask the links of erased users in all slices, as their owners do."""
    writes = dict[str, dict[str, bytes]]()
    for entity, slices in read_slices(store, entities).items():
        for source, record in slices.items():
            rows = np.frombuffer(record, RECORD).copy()
            mask_erased_links(rows, erasures.to_erased_ids())
            writes.setdefault(entity, {})[source] = rows.tobytes()
    offsets = store.read_offsets(SOURCES)
    store.merge(writes, offsets, {bucket: offsets.get(bucket, {}) for bucket in range(BUCKETS)})
