"""Which slices are mismatches, which are correct, and which cannot be checked."""

from collections.abc import Mapping

import numpy as np
import pytest

from contract.profiles.record import RECORD
from contract.profiles.slices import EMPTY_RECORD
from transport.records import OffsetRange
from worker.maintenance.comparison import SliceKey, StateComparison, Unchecked, VerificationResult

USER: SliceKey = ("user:u", "orders~id/0")
LOGS = {"orders~id/0": OffsetRange(0, 10)}


def make_slice_record(offset: int, count: int = 1) -> bytes:
    record = np.frombuffer(bytearray(EMPTY_RECORD), RECORD)
    record["offset"], record["count"] = offset, count
    return record.tobytes()


def compare_slices(
    stored: bytes | None,
    expected: bytes | None,
    *,
    key: SliceKey = USER,
    low: int = 0,
    has_expired: bool = False,
    is_erasing: bool = False,
) -> str | None:
    return StateComparison(
        actual={key: stored} if stored is not None else {},
        expected={key: expected} if expected is not None else {},
        offset_ranges={source: OffsetRange(low, high) for source, (_, high) in LOGS.items()},
        may_have_expired=lambda _: has_expired,
        is_erasing=lambda _: is_erasing,
    ).check_slice(key)


def test_equal_slices_are_no_mismatch() -> None:
    assert compare_slices(make_slice_record(5), make_slice_record(5)) is None


@pytest.mark.parametrize(
    ("stored", "expected", "problem"),
    [
        (make_slice_record(5, 2), make_slice_record(5), "count should be 1, is 2"),
        (make_slice_record(4), make_slice_record(5), "offset should be 5, is 4"),
        (None, make_slice_record(5), "missing"),
        (make_slice_record(5), None, "no event of its log concerns"),
        (make_slice_record(10), make_slice_record(9), "below the log's end at 10, is 10"),
        (make_slice_record(5)[:-1], make_slice_record(5), "471"),
    ],
)
def test_a_mismatch_is_described_in_words(stored: bytes | None, expected: bytes | None, problem: str) -> None:
    assert problem in (compare_slices(stored, expected) or "")


def test_a_partition_that_the_topic_never_had_is_a_mismatch() -> None:
    assert "partition `orders~id/7`" in (
        compare_slices(make_slice_record(5), None, key=("user:u", "orders~id/7")) or ""
    )


def test_a_slice_of_a_deleted_topic_cannot_be_checked() -> None:
    assert compare_slices(make_slice_record(5), None, key=("user:u", "orders~older/0")) == Unchecked.ORPHANED


@pytest.mark.parametrize(
    ("stored", "outcome"), [(make_slice_record(5), None), (make_slice_record(5, 9), Unchecked.TRUNCATED)]
)
def test_only_equal_slices_are_verified_against_a_truncated_log(stored: bytes, outcome: str | None) -> None:
    assert compare_slices(stored, make_slice_record(5), low=3) == outcome


def test_a_missing_slice_is_found_against_a_truncated_log() -> None:
    assert "missing" in (compare_slices(None, make_slice_record(5), low=3) or "")


def test_a_slice_not_written_for_long_may_have_expired() -> None:
    assert compare_slices(None, make_slice_record(5), has_expired=True) == Unchecked.EXPIRED


@pytest.mark.parametrize("stored", [None, make_slice_record(5, 2)])
def test_a_difference_of_a_user_whose_erasure_is_pending_cannot_be_checked(stored: bytes | None) -> None:
    assert compare_slices(stored, make_slice_record(5), is_erasing=True) == Unchecked.ERASING
    assert compare_slices(make_slice_record(5), make_slice_record(5), is_erasing=True) is None


def compare_states(
    stored: Mapping[SliceKey, bytes], expected: Mapping[SliceKey, bytes], low: int = 0
) -> VerificationResult:
    logs = {"orders~id/0": OffsetRange(low, 10)}
    return StateComparison(
        actual=stored, expected=expected, offset_ranges=logs, may_have_expired=lambda _: False
    ).compare()


def test_entities_slices_and_mismatches_are_counted_and_the_first_ones_listed() -> None:
    # given twenty users, every second one wrong, and a slice of a deleted topic
    expected = {(f"user:{n:02}", "orders~id/0"): make_slice_record(5) for n in range(20)}
    actual = {key: make_slice_record(5, n % 2) for n, key in enumerate(expected)} | {
        ("user:00", "orders~older/0"): make_slice_record(1)
    }
    # when
    result = compare_states(actual, expected)
    # then
    assert (result.entities, result.slices, result.mismatches, result.unchecked) == (20, 21, 10, 1)
    assert result.differences[0] == "user:00, orders~id/0: count should be 1, is 0"
    assert result.unchecked_by_reason == {Unchecked.ORPHANED: 1}
    assert result.remarks == []


def test_a_truncated_log_is_remarked() -> None:
    result = compare_states({USER: make_slice_record(5)}, {USER: make_slice_record(5)}, low=3)

    assert "orders~id/0 begins at 3, no longer at 0" in result.remarks[0]


def test_an_empty_sample_is_remarked() -> None:
    assert "holds any entity" in compare_states({}, {}).remarks[0]
