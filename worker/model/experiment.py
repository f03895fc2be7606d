"""The trial model, and the active models of which it is one.

A shadow scores the rows that the serving model answers, and its scores are only logged. A canary answers a share of the
users, see `worker.scoring.canary_router`.
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
    """A model with its trial: a shadow or a canary."""

    def __init__(self, model: Model, trial: Trial) -> None:
        self.model = model
        self.trial = trial
        self._has_logged_failure = False

    @property
    def version(self) -> str:
        return self.model.version

    def __str__(self) -> str:
        role = "a shadow" if self.trial.is_shadow else f"a canary for {self.trial.share:.1%} of users"
        return f"model {self.version}, {role}"

    def predict_shadow(self, row_count: int, predict: Callable[[Model], Scores], *, step: str = "score") -> Scores:
        """Shadow scores of `row_count` rows by task; empty if the model fails (counted in `trial_failures_total`)."""
        with metrics.SHADOW_SECONDS.time(), PROFILER(f"{step} shadow"):
            try:
                scores = predict(self.model)
                if wrong_shapes := {
                    task: values.shape for task, values in scores.items() if values.shape != (row_count,)
                }:
                    raise ValueError(f"Each task should have {row_count} scores. Found shapes {wrong_shapes}.")
                non_finite_count = sum(int((~np.isfinite(values)).sum()) for values in scores.values())
            except Exception as error:
                self.record_failure(error)
                return {}
        metrics.TRIAL_ROWS.labels("shadow").inc(row_count)
        metrics.TRIAL_FAILURES.labels("not_finite").inc(non_finite_count)
        return scores

    def record_failure(self, error: Exception) -> None:
        """Count a failure; the first one is logged with its traceback."""
        metrics.TRIAL_FAILURES.labels("error").inc()
        if not self._has_logged_failure:
            self._has_logged_failure = True
            log.error(
                "Trial model %s failed to score, serving model unaffected: %r", self.version, error, exc_info=error
            )


class ActiveModels(NamedTuple):
    """The serving model and the trial model, None where there is none."""

    serving: Model | None = None
    trial_model: TrialModel | None = None

    @property
    def models(self) -> tuple[Model | None, ...]:
        return (self.serving, self.trial_model.model) if self.trial_model else (self.serving,)

    @property
    def shadow(self) -> TrialModel | None:
        """The trial model, if it is a shadow."""
        return self.trial_model if self.trial_model and self.trial_model.trial.is_shadow else None

    @property
    def canary(self) -> TrialModel | None:
        """The trial model, if it is a canary."""
        return self.trial_model if self.trial_model and not self.trial_model.trial.is_shadow else None

    def supporting(self, graph: str) -> "ActiveModels":
        """The active models that have this graph."""
        serving, trial_model = self.serving, self.trial_model
        return ActiveModels(
            serving if serving and serving.has_graph(graph) else None,
            trial_model if trial_model and trial_model.model.has_graph(graph) else None,
        )


def model_version(model: Model | TrialModel | None) -> str:
    """The version as messages and rows state it: empty without a model."""
    return model.version if model else ""


def select_finite(scores: Scores, rows: Sequence[int]) -> dict[str, tuple[float, ...]]:
    """The scores of `rows` by task, without tasks that have a non-finite score among them."""
    selected = {task: values[rows] for task, values in scores.items()}
    return {task: tuple(values.tolist()) for task, values in selected.items() if np.isfinite(values).all()}


def check_finite(scores: Scores) -> None:
    """Raises ValueError for non-finite scores, so that the serving model answers instead."""
    if tasks := [task for task, values in scores.items() if not np.isfinite(values).all()]:
        raise ValueError(f"A trial model should give finite scores. Found others for {tasks}.")
