"""A challenger: the model on trial beside the one that serves.

In a shadow it is asked about the rows that the serving model answers, and what it says is only logged. In a canary it
answers a share of the users, see `worker.desks`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from contract.trial import Trial
from worker import metrics
from worker.runtime import Model, Scores
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)


class Challenger:
    """A model on trial, and how it is tried."""

    def __init__(self, model: Model, trial: Trial) -> None:
        self.model, self.trial = model, trial
        self._told = False

    @property
    def version(self) -> str:
        return self.model.version

    def __str__(self) -> str:
        way = "asked beside the serving one" if self.trial.is_shadow else f"answering {self.trial.share:.1%} of users"
        return f"model {self.version}, {way}"

    def say(self, rows: int, question: Callable[[Model], Scores], *, step: str = "score") -> Scores:
        """What it says of `rows` rows that another model answers; nothing where it fails, which is counted."""
        with metrics.SHADOW.time(), STOPWATCH(f"{step} shadow"):
            try:
                scores = question(self.model)
                if odd := {task: of.shape for task, of in scores.items() if of.shape != (rows,)}:
                    raise ValueError(f"Each of {rows} rows should get one number of each task. Found {odd}.")
                lacking = sum(int((~np.isfinite(of)).sum()) for of in scores.values())
            except Exception as error:
                self.note_failure(error)
                return {}
        metrics.TRIAL_ROWS.labels("shadow").inc(rows)
        metrics.TRIAL_FAILURES.labels("not_finite").inc(lacking)
        return scores

    def note_failure(self, error: Exception) -> None:
        """Count it, and say it once."""
        metrics.TRIAL_FAILURES.labels("error").inc()
        if not self._told:
            self._told = True
            log.error("Model %s is on trial and could not score; the one that serves goes on: %r", self.version, error)


class Lineup(NamedTuple):
    """The model that serves, if any, and the one on trial beside it, if any."""

    model: Model | None = None
    challenger: Challenger | None = None

    @property
    def models(self) -> tuple[Model | None, ...]:
        return (self.model, self.challenger.model) if self.challenger else (self.model,)

    @property
    def shadow(self) -> Challenger | None:
        """The challenger that is only asked."""
        return self.challenger if self.challenger and self.challenger.trial.is_shadow else None

    @property
    def canary(self) -> Challenger | None:
        """The challenger that answers some users."""
        return self.challenger if self.challenger and not self.challenger.trial.is_shadow else None

    def able(self, graph: str) -> "Lineup":
        """Those of the line-up that have this graph."""
        model, challenger = self.model, self.challenger
        return Lineup(
            model if model and model.can(graph) else None,
            challenger if challenger and challenger.model.can(graph) else None,
        )


def version_of(challenger: Challenger | None) -> str:
    return challenger.version if challenger else ""


def finite(said: Scores, at: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """What was said of the rows `at` of one answer; a task that has no number for one of them is left out."""
    chosen = {task: of[at] for task, of in said.items()}
    return {task: tuple(of.tolist()) for task, of in chosen.items() if np.isfinite(of).all()}


def check_finite(scores: Scores) -> None:
    """Raises ValueError for a number that the serving model would have given."""
    if odd := [task for task, of in scores.items() if not np.isfinite(of).all()]:
        raise ValueError(f"A model on trial should give finite numbers. Found others for {odd}.")
