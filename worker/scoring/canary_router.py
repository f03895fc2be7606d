"""Routes each user to the serving model or, for the canary's share of users, to the canary."""

from collections.abc import Callable
from typing import Generic, TypeVar

from worker.model.experiment import TrialModel
from worker.ops import metrics
from worker.scoring.bisect import bisect_failures

H = TypeVar("H")


class CanaryRouter(Generic[H]):
    """Answers rows with the serving model's handler, and those of the canary's users with the canary's."""

    def __init__(self, serving: H, canary: tuple[TrialModel, H] | None = None) -> None:
        self.serving, self._canary = serving, canary

    def answer(
        self,
        rows: list[int],
        user_of: Callable[[int], str],
        answer: Callable[[H, list[int]], None],
        on_bad_row: Callable[[int, Exception, int], None],
    ) -> None:
        """Answer all rows. If the canary fails, the serving model answers its rows too; its failures are bisected."""
        if self._canary:
            trial_model, handler = self._canary
            canary_rows = [row for row in rows if trial_model.trial.includes(user_of(row))]
            if canary_rows and try_trial(trial_model, lambda: answer(handler, canary_rows)):
                metrics.TRIAL_ROWS.labels("canary").inc(len(canary_rows))
                answered = set(canary_rows)
                rows = [row for row in rows if row not in answered]
        bisect_failures(rows, lambda chunk: answer(self.serving, chunk), on_bad_row)


def try_trial(trial_model: TrialModel, answer: Callable[[], None]) -> bool:
    """Whether the trial model could answer; a failure is counted."""
    try:
        answer()
    except Exception as error:
        trial_model.record_failure(error)
        return False
    return True
