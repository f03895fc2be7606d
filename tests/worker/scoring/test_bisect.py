"""Bisection: an event that cannot be scored costs no other event its answer."""

import logging

import pytest

from worker.scoring.bisect import bisect_failures


class RecordingScorer:
    """Answers rows unless a bad one is among them, and records its calls."""

    def __init__(self, bad: set[int]) -> None:
        self.bad, self.runs = bad, 0
        self.answered: list[int] = []
        self.bad_rows: dict[int, int] = {}

    def answer(self, rows: list[int]) -> None:
        self.runs += 1
        if self.bad.intersection(rows):
            raise ValueError("no score")
        self.answered += rows

    def on_bad_row(self, row: int, error: Exception, attempts: int) -> None:
        assert isinstance(error, ValueError)
        self.bad_rows[row] = attempts


def bisect_rows(rows: list[int], bad: set[int]) -> RecordingScorer:
    scorer = RecordingScorer(bad)
    bisect_failures(rows, scorer.answer, scorer.on_bad_row)
    return scorer


def test_rows_that_can_be_scored_are_scored_in_one_run() -> None:
    scorer = bisect_rows(list(range(100)), set())

    assert (scorer.answered, scorer.runs, scorer.bad_rows) == (list(range(100)), 1, {})


@pytest.mark.parametrize("bad", [0, 1, 49, 98, 99])
def test_a_bad_row_is_rejected_alone_and_the_others_are_answered_in_order(bad: int) -> None:
    # when
    scorer = bisect_rows(list(range(100)), {bad})
    # then
    assert scorer.answered == [row for row in range(100) if row != bad]
    assert list(scorer.bad_rows) == [bad]
    assert scorer.bad_rows[bad] in (7, 8)  # 100 rows are single after as many halvings
    assert scorer.runs <= 2 * 8


@pytest.mark.parametrize("bad", [{3, 4}, {0, 99}, set(range(100))])
def test_every_bad_row_is_found(bad: set[int]) -> None:
    scorer = bisect_rows(list(range(100)), bad)

    assert set(scorer.bad_rows) == bad
    assert scorer.answered == [row for row in range(100) if row not in bad]


def test_an_empty_batch_is_not_scored() -> None:
    assert bisect_rows([], {1}).runs == 0


def test_the_traceback_of_the_first_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    # when
    with caplog.at_level(logging.WARNING):
        bisect_rows(list(range(8)), {3})
    # then
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False, False]
