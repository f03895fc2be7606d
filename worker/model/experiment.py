"""A challenger: the model on trial beside the one that serves.

In a shadow it is asked about the rows that the serving model answers, and what it says is only logged. In a canary it
answers a share of the users, see `worker.scoring.canary_router`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from contract.experiment import Trial
from worker.model.onnx_model import Model, Scores
from worker.ops import metrics
from worker.ops.steps import PROFILER

log = logging.getLogger(__name__)


class TrialModel:
    """A model on trial, and how it is tried."""

    def __init__(self, model: Model, trial: Trial) -> None:
        self.model, self.trial = model, trial
        self._has_logged_failure = False

    @property
    def version(self) -> str:
        return self.model.version

    def __str__(self) -> str:
        role = "asked beside the serving one" if self.trial.is_shadow else f"answering {self.trial.share:.1%} of users"
        return f"model {self.version}, {role}"

    def predict_shadow(self, row_count: int, predict: Callable[[Model], Scores], *, step: str = "score") -> Scores:
        """What it says of `rows` rows that another model answers; nothing where it fails, which is counted."""
        with metrics.SHADOW_SECONDS.time(), PROFILER(f"{step} shadow"):
            try:
                scores = predict(self.model)
                if wrong_shapes := {
                    task: values.shape for task, values in scores.items() if values.shape != (row_count,)
                }:
                    raise ValueError(
                        f"Each of {row_count} rows should get one number of each task. Found {wrong_shapes}."
                    )
                non_finite_count = sum(int((~np.isfinite(values)).sum()) for values in scores.values())
            except Exception as error:
                self.record_failure(error)
                return {}
        metrics.TRIAL_ROWS.labels("shadow").inc(row_count)
        metrics.TRIAL_FAILURES.labels("not_finite").inc(non_finite_count)
        return scores

    def record_failure(self, error: Exception) -> None:
        """Count it, and say it once."""
        metrics.TRIAL_FAILURES.labels("error").inc()
        if not self._has_logged_failure:
            self._has_logged_failure = True
            log.error("Model %s is on trial and could not score; the one that serves goes on: %r", self.version, error)


class ActiveModels(NamedTuple):
    """The model that serves, if any, and the one on trial beside it, if any."""

    serving: Model | None = None
    trial_model: TrialModel | None = None

    @property
    def models(self) -> tuple[Model | None, ...]:
        return (self.serving, self.trial_model.model) if self.trial_model else (self.serving,)

    @property
    def shadow(self) -> TrialModel | None:
        """The challenger that is only asked."""
        return self.trial_model if self.trial_model and self.trial_model.trial.is_shadow else None

    @property
    def canary(self) -> TrialModel | None:
        """The challenger that answers some users."""
        return self.trial_model if self.trial_model and not self.trial_model.trial.is_shadow else None

    def supporting(self, graph: str) -> "ActiveModels":
        """Those of the line-up that have this graph."""
        serving, trial_model = self.serving, self.trial_model
        return ActiveModels(
            serving if serving and serving.has_graph(graph) else None,
            trial_model if trial_model and trial_model.model.has_graph(graph) else None,
        )


def trial_version(trial_model: TrialModel | None) -> str:
    return trial_model.version if trial_model else ""


def select_finite(scores: Scores, rows: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """What was said of the rows `at` of one answer; a task that has no number for one of them is left out."""
    selected = {task: values[rows] for task, values in scores.items()}
    return {task: tuple(values.tolist()) for task, values in selected.items() if np.isfinite(values).all()}


def check_finite(scores: Scores) -> None:
    """Raises ValueError for a number that the serving model would have given."""
    if tasks := [task for task, values in scores.items() if not np.isfinite(values).all()]:
        raise ValueError(f"A model on trial should give finite numbers. Found others for {tasks}.")
