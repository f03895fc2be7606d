"""What is a mismatch, what is none, and what cannot be told."""

from collections.abc import Mapping

import numpy as np
import pytest

from contract.profiles.record import RECORD
from contract.profiles.slices import EMPTY_RECORD
from transport.records import OffsetRange
from worker.maintenance.comparison import UNCHECKED, SliceKey, StateComparison, VerificationResult

USER: SliceKey = ("user:u", "orders~id/0")
LOGS = {"orders~id/0": OffsetRange(0, 10)}


def make_slice_record(offset: int, count: int = 1) -> bytes:
    one = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    one["offset"], one["count"] = offset, count
    return one.tobytes()


def compare_slices(
    stored: bytes | None, expected: bytes | None, *, pair: SliceKey = USER, low: int = 0, dropped: bool = False
) -> str | None:
    return StateComparison(
        actual={pair: stored} if stored is not None else {},
        expected={pair: expected} if expected is not None else {},
        offset_ranges={source: OffsetRange(low, extent.high) for source, extent in LOGS.items()},
        may_have_expired=lambda _: dropped,
    ).check_slice(pair)


def test_what_is_equal_is_no_mismatch() -> None:
    assert compare_slices(make_slice_record(5), make_slice_record(5)) is None


@pytest.mark.parametrize(
    ("found", "should", "said"),
    [
        (make_slice_record(5, 2), make_slice_record(5), "count should be 1, is 2"),
        (make_slice_record(4), make_slice_record(5), "offset should be 5, is 4"),
        (None, make_slice_record(5), "missing"),
        (make_slice_record(5), None, "no event of its log"),
        (make_slice_record(10), make_slice_record(9), "below the log's end at 10, is 10"),
        (make_slice_record(5)[:-1], make_slice_record(5), "471"),
    ],
)
def test_what_differs_is_said_in_words(found: bytes | None, should: bytes | None, said: str) -> None:
    assert said in (compare_slices(found, should) or "")


def test_a_partition_that_the_topic_never_had_is_a_mismatch() -> None:
    assert "partition `orders~id/7`" in (
        compare_slices(make_slice_record(5), None, pair=("user:u", "orders~id/7")) or ""
    )


def test_a_slice_of_a_topic_that_is_gone_cannot_be_checked() -> None:
    assert compare_slices(make_slice_record(5), None, pair=("user:u", "orders~older/0")) == UNCHECKED


@pytest.mark.parametrize(("found", "outcome"), [(make_slice_record(5), None), (make_slice_record(5, 9), UNCHECKED)])
def test_over_a_log_without_its_beginning_only_what_is_equal_is_known(found: bytes, outcome: str | None) -> None:
    assert compare_slices(found, make_slice_record(5), low=3) == outcome


def test_what_a_log_without_its_beginning_still_holds_should_be_there() -> None:
    assert "missing" in (compare_slices(None, make_slice_record(5), low=3) or "")


def test_what_nobody_wrote_for_long_may_have_expired() -> None:
    assert compare_slices(None, make_slice_record(5), dropped=True) == UNCHECKED


def compare_states(
    stored: Mapping[SliceKey, bytes], expected: Mapping[SliceKey, bytes], low: int = 0
) -> VerificationResult:
    logs = {"orders~id/0": OffsetRange(low, 10)}
    return StateComparison(
        actual=stored, expected=expected, offset_ranges=logs, may_have_expired=lambda _: False
    ).compare()


def test_entities_slices_and_mismatches_are_counted_and_the_first_ones_shown() -> None:
    # given twenty users, every second one of which is wrong, one with a slice of a topic that is gone
    should = {(f"user:{n:02}", "orders~id/0"): make_slice_record(5) for n in range(20)}
    actual = {pair: make_slice_record(5, n % 2) for n, pair in enumerate(should)} | {
        ("user:00", "orders~older/0"): make_slice_record(1)
    }
    # when
    counted = compare_states(actual, should)
    # then
    assert (counted.entities, counted.slices, counted.mismatches, counted.unchecked) == (20, 21, 10, 1)
    assert counted.differences[0] == "user:00, orders~id/0: count should be 1, is 0"
    assert counted.remarks == []


def test_a_log_that_lost_its_beginning_is_told_of() -> None:
    assert (
        "orders~id/0 begins at 3, no longer at 0"
        in compare_states({USER: make_slice_record(5)}, {USER: make_slice_record(5)}, low=3).remarks[0]
    )


def test_nothing_to_compare_is_told_of() -> None:
    assert "holds anything" in compare_states({}, {}).remarks[0]
