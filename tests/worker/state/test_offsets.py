"""Positions: where recovery starts, what a batch writes down, what brings the other buckets up."""

from collections.abc import Sequence

import pytest

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from transport.records import PartitionOffsets, TopicPartition
from worker.state.offsets import OffsetTracker, StartOffsets, find_start, raise_if_log_replaced, raise_if_lost

ORDERS = TopicPartition("shop.orders", 3)
WATCHED = TopicPartition("shop.clicks", 0)


def make_bucket_offsets(offset: int | None, **others: int | None) -> Sequence[int | None]:
    """The same for every bucket but the named ones (`b7=5`)."""
    return [others.get(f"b{bucket}", offset) for bucket in range(BUCKETS)]


@pytest.mark.parametrize(
    ("committed", "merged", "start"),
    [
        (10, make_bucket_offsets(10), StartOffsets(10, 10)),
        (10, make_bucket_offsets(10, b63=9), StartOffsets(9, 10)),
        (10, make_bucket_offsets(12), StartOffsets(10, 10)),
        (10, make_bucket_offsets(12, b0=4), StartOffsets(4, 10)),
    ],
)
def test_folding_starts_at_the_least_of_committed_and_merged_and_answering_at_committed(
    committed: int, merged: Sequence[int | None], start: StartOffsets
) -> None:
    assert find_start(PartitionOffsets(committed, 0, 20), merged) == start


def test_a_first_start_begins_with_the_first_record_there_is() -> None:
    assert find_start(PartitionOffsets(None, 7, 20), make_bucket_offsets(None)) == StartOffsets(7, 7)


def test_a_bucket_that_knows_nothing_needs_the_log_from_its_beginning() -> None:
    assert find_start(PartitionOffsets(10, 0, 20), make_bucket_offsets(10, b5=None)) == StartOffsets(0, 10)


def test_a_group_that_never_committed_answers_all_there_is_over_a_state_that_is_there() -> None:
    assert find_start(PartitionOffsets(None, 0, 20), make_bucket_offsets(8)) == StartOffsets(0, 0)


@pytest.mark.parametrize(("committed", "answered"), [(20, 20), (21, 0)])
def test_a_committed_position_beyond_the_end_speaks_of_another_log(committed: int, answered: int) -> None:
    assert find_start(PartitionOffsets(committed, 0, 20), make_bucket_offsets(0)).committed == answered


@pytest.mark.parametrize(
    ("held", "merged", "lost"),
    [
        (PartitionOffsets(10, 9, 20), make_bucket_offsets(9), 0),
        (PartitionOffsets(10, 9, 20), make_bucket_offsets(8), 1),
        (PartitionOffsets(10, 3, 20), make_bucket_offsets(10, b1=None), 3),
        (PartitionOffsets(2, 3, 20), make_bucket_offsets(5), 1),
    ],
)
def test_records_that_are_needed_and_gone_are_lost(
    held: PartitionOffsets, merged: Sequence[int | None], lost: int
) -> None:
    start = find_start(held, merged)

    assert start.lost == lost
    assert (start.offset, start.committed) >= (held.low, held.low)


def test_a_lost_log_is_refused_and_a_whole_one_is_not() -> None:
    raise_if_lost(ORDERS, StartOffsets(5, 5, 0))
    with pytest.raises(LostLog, match=r"shop\.orders/3 .* first 2 gone.*on_lost_log"):
        raise_if_lost(ORDERS, StartOffsets(5, 5, 2))


@pytest.mark.parametrize("end", [20, 19])
def test_a_log_that_ends_before_its_state_does_is_another_one(end: int) -> None:
    held, merged = PartitionOffsets(None, 0, end), make_bucket_offsets(20, b3=25)

    if end == 20:
        raise_if_log_replaced(ORDERS, held, merged)
        return
    with pytest.raises(LostLog, match=r"shop\.orders/3 should reach 20, .*Found its end at 19"):
        raise_if_log_replaced(ORDERS, held, merged)


def make_owner(offset: int) -> OffsetTracker:
    """Somebody who owns one partition of orders, merged and folded up to `at`, and watches one of clicks."""
    positions = OffsetTracker(sources={ORDERS: "orders/3"})
    positions.committed |= {ORDERS: offset, WATCHED: offset}
    positions.folded[ORDERS] = offset
    positions.record_merged({bucket: {"orders/3": offset} for bucket in range(BUCKETS)})
    return positions


def test_only_what_lies_below_committed_is_answered() -> None:
    positions = make_owner(5)

    assert positions.is_answered(ORDERS, 4)
    assert not positions.is_answered(ORDERS, 5)
    assert not positions.is_answered(TopicPartition("shop.orders", 0), 0)


def test_a_batch_writes_its_ends_into_the_buckets_it_touches() -> None:
    assert make_owner(5).merged_after({ORDERS: 9, WATCHED: 30}, [1, 2]) == {1: {"orders/3": 9}, 2: {"orders/3": 9}}


def test_a_bucket_that_is_further_than_the_batch_stays_there() -> None:
    positions = make_owner(5)
    positions.record_merged({1: {"orders/3": 12}})

    assert positions.merged_after({ORDERS: 9}, [1, 2]) == {1: {"orders/3": 12}, 2: {"orders/3": 9}}


def test_every_bucket_that_lags_is_brought_up_to_what_is_folded() -> None:
    # given a batch that touched one bucket
    positions = make_owner(5)
    after = positions.merged_after({ORDERS: 9}, [1])
    positions.record_merged(after)
    positions.record_folded({ORDERS: 9})
    # when
    lagging = positions.find_lagging()
    # then
    assert lagging == {bucket: {"orders/3": 9} for bucket in range(BUCKETS) if bucket != 1}
    positions.record_merged(lagging)
    assert positions.find_lagging() == {}


def test_a_bucket_that_redis_forgot_is_noticed_also_where_nothing_is_to_be_written() -> None:
    # given
    positions = make_owner(5)
    actual = {bucket: {"orders/3": 5} for bucket in range(BUCKETS)}
    positions.check_merged(actual)
    # when
    actual[7] = {}
    # then
    assert positions.find_lagging() == {}
    with pytest.raises(StaleState, match=r"Buckets \[7\] should be merged as this worker left them"):
        positions.check_merged(actual)


def test_positions_never_go_back() -> None:
    positions = make_owner(5)

    positions.record_committed({ORDERS: 3})
    positions.record_folded({ORDERS: 3})

    assert (positions.committed[ORDERS], positions.folded[ORDERS]) == (5, 5)


@pytest.mark.parametrize("place", [ORDERS, WATCHED])
def test_a_partition_that_went_back_by_itself_is_noticed(place: TopicPartition) -> None:
    positions = make_owner(5)

    positions.check_order({place: 5})
    with pytest.raises(StaleState, match=f"{place.topic}/{place.partition} should go on from 5. Found 4"):
        positions.check_order({place: 4})


def test_what_is_committed_and_not_yet_merged_may_be_read_again() -> None:
    # given a recovery that folds from 5 on what is answered up to 8
    positions = make_owner(5)
    positions.committed[ORDERS] = 8
    # then
    positions.check_order({ORDERS: 5})


def test_nothing_is_known_of_a_partition_that_left() -> None:
    # given
    positions = make_owner(5)
    # when
    positions.drop_partitions([ORDERS, WATCHED])
    # then
    assert (positions.sources, positions.committed, positions.folded) == ({}, {}, {})
    assert set(map(len, positions.merged.values())) == {0}
