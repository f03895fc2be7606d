"""Where recovery starts, which merged offsets a batch writes, and which buckets lag."""

from collections.abc import Sequence

import pytest

from contract.errors import LostLog, StaleState
from contract.hashing import BUCKETS
from transport.records import PartitionOffsets, TopicPartition
from worker.state.offsets import (
    OffsetMetadata,
    OffsetTracker,
    StartOffsets,
    find_start,
    raise_if_log_replaced,
    raise_if_lost,
)

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
def test_folding_starts_at_the_lowest_offset_and_answering_at_the_committed_one(
    committed: int, merged: Sequence[int | None], start: StartOffsets
) -> None:
    assert find_start(PartitionOffsets(committed, 0, 20), merged) == start


def test_a_first_start_is_at_the_first_record() -> None:
    assert find_start(PartitionOffsets(None, 7, 20), make_bucket_offsets(None)) == StartOffsets(7, 7)


def test_a_bucket_without_the_source_needs_the_log_from_its_beginning() -> None:
    assert find_start(PartitionOffsets(10, 0, 20), make_bucket_offsets(10, b5=None)) == StartOffsets(0, 10)


def test_a_group_that_never_committed_answers_all_records_over_an_existing_state() -> None:
    assert find_start(PartitionOffsets(None, 0, 20), make_bucket_offsets(8)) == StartOffsets(0, 0)


@pytest.mark.parametrize(("committed", "answered"), [(20, 20), (21, 0)])
def test_a_committed_offset_beyond_the_end_is_of_another_log(committed: int, answered: int) -> None:
    assert find_start(PartitionOffsets(committed, 0, 20), make_bucket_offsets(0)).committed == answered


@pytest.mark.parametrize(
    ("offsets", "merged", "lost"),
    [
        (PartitionOffsets(10, 9, 20), make_bucket_offsets(9), 0),
        (PartitionOffsets(10, 9, 20), make_bucket_offsets(8), 1),
        (PartitionOffsets(10, 3, 20), make_bucket_offsets(10, b1=None), 3),
        (PartitionOffsets(2, 3, 20), make_bucket_offsets(5), 1),
    ],
)
def test_needed_records_that_were_deleted_are_lost(
    offsets: PartitionOffsets, merged: Sequence[int | None], lost: int
) -> None:
    start = find_start(offsets, merged)

    assert start.lost == lost
    assert (start.offset, start.committed) >= (offsets.low, offsets.low)


def test_lost_records_are_refused() -> None:
    raise_if_lost(ORDERS, StartOffsets(5, 5, 0))
    with pytest.raises(LostLog, match=r"shop\.orders/3 .* first 2 deleted.*on_lost_log"):
        raise_if_lost(ORDERS, StartOffsets(5, 5, 2))


@pytest.mark.parametrize("end", [20, 19])
def test_a_log_that_ends_before_its_state_was_replaced(end: int) -> None:
    offsets, merged = PartitionOffsets(None, 0, end), make_bucket_offsets(20, b3=25)

    if end == 20:
        raise_if_log_replaced(ORDERS, offsets, merged)
        return
    with pytest.raises(LostLog, match=r"shop\.orders/3 should reach 20, .*Found its end at 19"):
        raise_if_log_replaced(ORDERS, offsets, merged)


def make_tracker(offset: int) -> OffsetTracker:
    """The offsets of a worker that folded one partition of orders up to `offset`, and watches one of clicks."""
    tracker = OffsetTracker(sources={ORDERS: "orders/3"})
    tracker.committed |= {ORDERS: offset, WATCHED: offset}
    tracker.folded[ORDERS] = offset
    tracker.record_merged({bucket: {"orders/3": offset} for bucket in range(BUCKETS)})
    return tracker


def test_only_records_below_the_committed_offset_are_answered() -> None:
    tracker = make_tracker(5)

    assert tracker.is_answered(ORDERS, 4)
    assert not tracker.is_answered(ORDERS, 5)
    assert not tracker.is_answered(TopicPartition("shop.orders", 0), 0)


def test_a_batch_writes_its_ends_to_the_buckets_it_touches() -> None:
    assert make_tracker(5).compute_merged({ORDERS: 9, WATCHED: 30}, [1, 2]) == {1: {"orders/3": 9}, 2: {"orders/3": 9}}


def test_a_bucket_ahead_of_the_batch_stays_there() -> None:
    tracker = make_tracker(5)
    tracker.record_merged({1: {"orders/3": 12}})

    assert tracker.compute_merged({ORDERS: 9}, [1, 2]) == {1: {"orders/3": 12}, 2: {"orders/3": 9}}


def test_lagging_buckets_are_advanced_to_the_folded_offset() -> None:
    # given a batch that touched one bucket
    tracker = make_tracker(5)
    after = tracker.compute_merged({ORDERS: 9}, [1])
    tracker.record_merged(after)
    tracker.record_folded({ORDERS: 9})
    # when
    lagging = tracker.find_lagging()
    # then
    assert lagging == {bucket: {"orders/3": 9} for bucket in range(BUCKETS) if bucket != 1}
    tracker.record_merged(lagging)
    assert tracker.find_lagging() == {}


def test_a_bucket_lost_by_redis_is_found_without_any_write() -> None:
    # given
    tracker = make_tracker(5)
    actual = {bucket: {"orders/3": 5} for bucket in range(BUCKETS)}
    tracker.check_merged(actual)
    # when
    actual[7] = {}
    # then
    assert tracker.find_lagging() == {}
    with pytest.raises(StaleState, match=r"Buckets \[7\] should be merged as this worker left them"):
        tracker.check_merged(actual)


def test_offsets_never_go_back() -> None:
    tracker = make_tracker(5)

    tracker.record_committed({ORDERS: 3})
    tracker.record_folded({ORDERS: 3})

    assert (tracker.committed[ORDERS], tracker.folded[ORDERS]) == (5, 5)


@pytest.mark.parametrize("partition", [ORDERS, WATCHED])
def test_a_partition_that_went_back_is_found(partition: TopicPartition) -> None:
    tracker = make_tracker(5)

    tracker.check_order({partition: 5})
    with pytest.raises(StaleState, match=f"{partition} should go on from 5. Found 4"):
        tracker.check_order({partition: 4})


def test_committed_but_unmerged_records_may_be_read_again() -> None:
    # given a recovery that folds from 5, with answers up to 8
    tracker = make_tracker(5)
    tracker.committed[ORDERS] = 8
    # then
    tracker.check_order({ORDERS: 5})


@pytest.mark.parametrize("partition", [ORDERS, WATCHED])
def test_answered_events_whose_users_may_wait_are_read_again(partition: TopicPartition) -> None:
    # given a recovery that reads from 3, with answers up to 8
    tracker = make_tracker(8)
    tracker.waiting_from[partition] = 3
    tracker.folded.pop(ORDERS)
    # then
    tracker.check_order({partition: 3})
    assert [offset for offset in range(10) if tracker.may_wait(partition, offset)] == [3, 4, 5, 6, 7]
    # when a part of them has been read, and then all
    tracker.end_waiting({partition: 7})
    assert tracker.may_wait(partition, 7)
    tracker.end_waiting({partition: 8})
    assert not tracker.may_wait(partition, 7)


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (OffsetMetadata("clicks~mXk2/3", 17), "clicks~mXk2/3 waiting=17"),
        (OffsetMetadata("clicks/3", None), "clicks/3"),
        (OffsetMetadata("", 0), " waiting=0"),
        (OffsetMetadata(), ""),
    ],
)
def test_the_metadata_of_a_commit_are_read_back(metadata: OffsetMetadata, text: str) -> None:
    assert str(metadata) == text
    assert OffsetMetadata.read(text) == metadata


def test_a_dropped_partition_leaves_no_offsets() -> None:
    # given
    tracker = make_tracker(5)
    # when
    tracker.drop_partitions([ORDERS, WATCHED])
    # then
    assert (tracker.sources, tracker.committed, tracker.folded) == ({}, {}, {})
    assert set(map(len, tracker.merged.values())) == {0}
