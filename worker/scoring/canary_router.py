"""Desks: which model answers whom. A canary has a desk of its own for its share of the users.

A challenger can harm nobody: where it fails as a canary, the serving model stands in.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from worker.model.experiment import TrialModel
from worker.ops import metrics
from worker.scoring.results import bisect_failures

H = TypeVar("H")


class CanaryRouter(Generic[H]):
    """Where rows are answered: at the serving model's desk, or, for the users of a canary, at the challenger's."""

    def __init__(self, serving: H, canary: tuple[TrialModel, H] | None = None) -> None:
        self.serving, self._canary = serving, canary

    def answer(
        self,
        rows: list[int],
        user_of: Callable[[int], str],
        answer: Callable[[H, list[int]], None],
        on_bad_row: Callable[[int, Exception, int], None],
    ) -> None:
        """Have all rows answered, halving them where the serving model fails; see `worker.scoring.results.halve`."""
        if self._canary:
            trial_model, handler = self._canary
            canary_rows = [row for row in rows if trial_model.trial.includes(user_of(row))]
            if canary_rows and try_trial(trial_model, lambda: answer(handler, canary_rows)):
                metrics.TRIAL_ROWS.labels("canary").inc(len(canary_rows))
                answered = set(canary_rows)
                rows = [row for row in rows if row not in answered]
        bisect_failures(rows, lambda chunk: answer(self.serving, chunk), on_bad_row)


def try_trial(trial_model: TrialModel, answer: Callable[[], None]) -> bool:
    """Whether a challenger could answer."""
    try:
        answer()
    except Exception as error:
        trial_model.record_failure(error)
        return False
    return True
