"""Desks: which model answers whom. A canary has a desk of its own for its share of the users.

A challenger can harm nobody: where it fails as a canary, the serving model stands in.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from worker import metrics
from worker.answers import halve
from worker.challenger import Challenger

D = TypeVar("D")


class Desks(Generic[D]):
    """Where rows are answered: at the serving model's desk, or, for the users of a canary, at the challenger's."""

    def __init__(self, serving: D, canary: tuple[Challenger, D] | None = None) -> None:
        self.serving, self._canary = serving, canary

    def answer(
        self,
        rows: list[int],
        user_of: Callable[[int], str],
        answer: Callable[[D, list[int]], None],
        guilty: Callable[[int, Exception, int], None],
    ) -> None:
        """Have all rows answered, halving them where the serving model fails; see `worker.answers.halve`."""
        if self._canary:
            challenger, desk = self._canary
            others = [row for row in rows if challenger.trial.takes(user_of(row))]
            if others and attempted(challenger, lambda: answer(desk, others)):
                metrics.TRIAL_ROWS.labels("canary").inc(len(others))
                taken = set(others)
                rows = [row for row in rows if row not in taken]
        halve(rows, lambda some: answer(self.serving, some), guilty)


def attempted(challenger: Challenger, answer: Callable[[], None]) -> bool:
    """Whether a challenger could answer."""
    try:
        answer()
    except Exception as error:
        challenger.note_failure(error)
        return False
    return True
