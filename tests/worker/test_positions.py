"""Positions: where recovery starts, what a batch writes down, what brings the other buckets up."""

from collections.abc import Sequence

import pytest

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from worker.intake import Held, Place
from worker.positions import Positions, Start, refuse_another_log, refuse_loss, start_of

ORDERS = Place("shop.orders", 3)
WATCHED = Place("shop.clicks", 0)


def every_bucket(at: int | None, **others: int | None) -> Sequence[int | None]:
    """The same for every bucket but the named ones (`b7=5`)."""
    return [others.get(f"b{bucket}", at) for bucket in range(BUCKETS)]


@pytest.mark.parametrize(
    ("committed", "merged", "start"),
    [
        (10, every_bucket(10), Start(10, 10)),
        (10, every_bucket(10, b63=9), Start(9, 10)),
        (10, every_bucket(12), Start(10, 10)),
        (10, every_bucket(12, b0=4), Start(4, 10)),
    ],
)
def test_folding_starts_at_the_least_of_committed_and_merged_and_answering_at_committed(
    committed: int, merged: Sequence[int | None], start: Start
) -> None:
    assert start_of(Held(committed, 0, 20), merged) == start


def test_a_first_start_begins_with_the_first_record_there_is() -> None:
    assert start_of(Held(None, 7, 20), every_bucket(None)) == Start(7, 7)


def test_a_bucket_that_knows_nothing_needs_the_log_from_its_beginning() -> None:
    assert start_of(Held(10, 0, 20), every_bucket(10, b5=None)) == Start(0, 10)


def test_a_group_that_never_committed_answers_all_there_is_over_a_state_that_is_there() -> None:
    assert start_of(Held(None, 0, 20), every_bucket(8)) == Start(0, 0)


@pytest.mark.parametrize(("committed", "answered"), [(20, 20), (21, 0)])
def test_a_committed_position_beyond_the_end_speaks_of_another_log(committed: int, answered: int) -> None:
    assert start_of(Held(committed, 0, 20), every_bucket(0)).committed == answered


@pytest.mark.parametrize(
    ("held", "merged", "lost"),
    [
        (Held(10, 9, 20), every_bucket(9), 0),
        (Held(10, 9, 20), every_bucket(8), 1),
        (Held(10, 3, 20), every_bucket(10, b1=None), 3),
        (Held(2, 3, 20), every_bucket(5), 1),
    ],
)
def test_records_that_are_needed_and_gone_are_lost(held: Held, merged: Sequence[int | None], lost: int) -> None:
    start = start_of(held, merged)

    assert start.lost == lost
    assert (start.offset, start.committed) >= (held.low, held.low)


def test_a_lost_log_is_refused_and_a_whole_one_is_not() -> None:
    refuse_loss(ORDERS, Start(5, 5, 0))
    with pytest.raises(LostLog, match=r"shop\.orders/3 .* first 2 gone.*on_lost_log"):
        refuse_loss(ORDERS, Start(5, 5, 2))


@pytest.mark.parametrize("end", [20, 19])
def test_a_log_that_ends_before_its_state_does_is_another_one(end: int) -> None:
    held, merged = Held(None, 0, end), every_bucket(20, b3=25)

    if end == 20:
        refuse_another_log(ORDERS, held, merged)
        return
    with pytest.raises(LostLog, match=r"shop\.orders/3 should reach 20, .*Found its end at 19"):
        refuse_another_log(ORDERS, held, merged)


def owner(at: int) -> Positions:
    """Somebody who owns one partition of orders, merged and folded up to `at`, and watches one of clicks."""
    positions = Positions(sources={ORDERS: "orders/3"})
    positions.committed |= {ORDERS: at, WATCHED: at}
    positions.folded[ORDERS] = at
    positions.note_merged({bucket: {"orders/3": at} for bucket in range(BUCKETS)})
    return positions


def test_only_what_lies_below_committed_is_answered() -> None:
    positions = owner(5)

    assert positions.is_answered(ORDERS, 4)
    assert not positions.is_answered(ORDERS, 5)
    assert not positions.is_answered(Place("shop.orders", 0), 0)


def test_a_batch_writes_its_ends_into_the_buckets_it_touches() -> None:
    assert owner(5).after({ORDERS: 9, WATCHED: 30}, [1, 2]) == {1: {"orders/3": 9}, 2: {"orders/3": 9}}


def test_a_bucket_that_is_further_than_the_batch_stays_there() -> None:
    positions = owner(5)
    positions.note_merged({1: {"orders/3": 12}})

    assert positions.after({ORDERS: 9}, [1, 2]) == {1: {"orders/3": 12}, 2: {"orders/3": 9}}


def test_every_bucket_that_lags_is_brought_up_to_what_is_folded() -> None:
    # given a batch that touched one bucket
    positions = owner(5)
    after = positions.after({ORDERS: 9}, [1])
    positions.note_merged(after)
    positions.note_folded({ORDERS: 9})
    # when
    lagging = positions.advance()
    # then
    assert lagging == {bucket: {"orders/3": 9} for bucket in range(BUCKETS) if bucket != 1}
    positions.note_merged(lagging)
    assert positions.advance() == {}


def test_a_bucket_that_redis_forgot_is_noticed_also_where_nothing_is_to_be_written() -> None:
    # given
    positions = owner(5)
    found = {bucket: {"orders/3": 5} for bucket in range(BUCKETS)}
    positions.check_merged(found)
    # when
    found[7] = {}
    # then
    assert positions.advance() == {}
    with pytest.raises(StaleState, match=r"Buckets \[7\] should be merged as this worker left them"):
        positions.check_merged(found)


def test_positions_never_go_back() -> None:
    positions = owner(5)

    positions.note_committed({ORDERS: 3})
    positions.note_folded({ORDERS: 3})

    assert (positions.committed[ORDERS], positions.folded[ORDERS]) == (5, 5)


@pytest.mark.parametrize("place", [ORDERS, WATCHED])
def test_a_partition_that_went_back_by_itself_is_noticed(place: Place) -> None:
    positions = owner(5)

    positions.check_order({place: 5})
    with pytest.raises(StaleState, match=f"{place.topic}/{place.partition} should go on from 5. Found 4"):
        positions.check_order({place: 4})


def test_what_is_committed_and_not_yet_merged_may_be_read_again() -> None:
    # given a recovery that folds from 5 on what is answered up to 8
    positions = owner(5)
    positions.committed[ORDERS] = 8
    # then
    positions.check_order({ORDERS: 5})


def test_nothing_is_known_of_a_partition_that_left() -> None:
    # given
    positions = owner(5)
    # when
    positions.forget([ORDERS, WATCHED])
    # then
    assert (positions.sources, positions.committed, positions.folded) == ({}, {}, {})
    assert set(map(len, positions.merged.values())) == {0}
