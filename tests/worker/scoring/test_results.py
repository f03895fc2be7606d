"""Halving: an event that cannot be scored costs no other its answer."""

import pytest

from worker.scoring.results import bisect_failures


class RecordingScorer:
    """Answers rows unless a bad one is among them, and remembers what it did."""

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
    scoring = RecordingScorer(bad)
    bisect_failures(rows, scoring.answer, scoring.on_bad_row)
    return scoring


def test_rows_that_can_be_scored_are_scored_at_once() -> None:
    scoring = bisect_rows(list(range(100)), set())

    assert (scoring.answered, scoring.runs, scoring.bad_rows) == (list(range(100)), 1, {})


@pytest.mark.parametrize("bad", [0, 1, 49, 98, 99])
def test_a_guilty_row_alone_is_rejected_and_its_neighbours_are_answered_in_order(bad: int) -> None:
    # when
    scoring = bisect_rows(list(range(100)), {bad})
    # then
    assert scoring.answered == [row for row in range(100) if row != bad]
    assert list(scoring.bad_rows) == [bad]
    assert scoring.bad_rows[bad] in (7, 8)  # 100 rows are alone after as many halvings
    assert scoring.runs <= 2 * 8


@pytest.mark.parametrize("bad", [{3, 4}, {0, 99}, set(range(100))])
def test_every_guilty_row_is_found(bad: set[int]) -> None:
    scoring = bisect_rows(list(range(100)), bad)

    assert set(scoring.bad_rows) == bad
    assert scoring.answered == [row for row in range(100) if row not in bad]


def test_no_rows_are_no_run() -> None:
    assert bisect_rows([], {1}).runs == 0
