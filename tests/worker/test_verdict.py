"""What is a mismatch, what is none, and what cannot be told."""

from collections.abc import Mapping

import numpy as np
import pytest

from contract.profiles import RECORD
from contract.slices import EMPTY
from worker.follower import Extent
from worker.verdict import UNCHECKED, Comparison, Pair, Verdict

USER: Pair = ("user:u", "orders~id/0")
LOGS = {"orders~id/0": Extent(0, 10)}


def record(offset: int, count: int = 1) -> bytes:
    one = np.frombuffer(bytearray(EMPTY), RECORD)
    one["offset"], one["count"] = offset, count
    return one.tobytes()


def judged(
    found: bytes | None, should: bytes | None, *, pair: Pair = USER, low: int = 0, dropped: bool = False
) -> str | None:
    return Comparison(
        found={pair: found} if found is not None else {},
        should={pair: should} if should is not None else {},
        logs={source: Extent(low, extent.high) for source, extent in LOGS.items()},
        may_be_dropped=lambda _: dropped,
    ).judge(pair)


def test_what_is_equal_is_no_mismatch() -> None:
    assert judged(record(5), record(5)) is None


@pytest.mark.parametrize(
    ("found", "should", "said"),
    [
        (record(5, 2), record(5), "count should be 1, is 2"),
        (record(4), record(5), "offset should be 5, is 4"),
        (None, record(5), "missing"),
        (record(5), None, "no event of its log"),
        (record(10), record(9), "below the log's end at 10, is 10"),
        (record(5)[:-1], record(5), "471"),
    ],
)
def test_what_differs_is_said_in_words(found: bytes | None, should: bytes | None, said: str) -> None:
    assert said in (judged(found, should) or "")


def test_a_partition_that_the_topic_never_had_is_a_mismatch() -> None:
    assert "partition `orders~id/7`" in (judged(record(5), None, pair=("user:u", "orders~id/7")) or "")


def test_a_slice_of_a_topic_that_is_gone_cannot_be_checked() -> None:
    assert judged(record(5), None, pair=("user:u", "orders~older/0")) == UNCHECKED


@pytest.mark.parametrize(("found", "outcome"), [(record(5), None), (record(5, 9), UNCHECKED)])
def test_over_a_log_without_its_beginning_only_what_is_equal_is_known(found: bytes, outcome: str | None) -> None:
    assert judged(found, record(5), low=3) == outcome


def test_what_a_log_without_its_beginning_still_holds_should_be_there() -> None:
    assert "missing" in (judged(None, record(5), low=3) or "")


def test_what_nobody_wrote_for_long_may_have_expired() -> None:
    assert judged(None, record(5), dropped=True) == UNCHECKED


def verdict(found: Mapping[Pair, bytes], should: Mapping[Pair, bytes], low: int = 0) -> Verdict:
    logs = {"orders~id/0": Extent(low, 10)}
    return Comparison(found=found, should=should, logs=logs, may_be_dropped=lambda _: False).verdict()


def test_entities_slices_and_mismatches_are_counted_and_the_first_ones_shown() -> None:
    # given twenty users, every second one of which is wrong, one with a slice of a topic that is gone
    should = {(f"user:{n:02}", "orders~id/0"): record(5) for n in range(20)}
    found = {pair: record(5, n % 2) for n, pair in enumerate(should)} | {("user:00", "orders~older/0"): record(1)}
    # when
    counted = verdict(found, should)
    # then
    assert (counted.entities, counted.slices, counted.mismatches, counted.unchecked) == (20, 21, 10, 1)
    assert counted.differences[0] == "user:00, orders~id/0: count should be 1, is 0"
    assert counted.remarks == []


def test_a_log_that_lost_its_beginning_is_told_of() -> None:
    assert "orders~id/0 begins at 3, no longer at 0" in verdict({USER: record(5)}, {USER: record(5)}, low=3).remarks[0]


def test_nothing_to_compare_is_told_of() -> None:
    assert "holds anything" in verdict({}, {}).remarks[0]
