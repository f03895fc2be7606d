"""A contest: two models judged by what they said when they served, and whether their difference is more than chance.

A shadow is paired: both said something of the same rows. In a canary users are apart, so each model has rows of its
own. Rows of one user hang together, so whole users are drawn again: the percentile interval of the bootstrap (Efron and
Tibshirani 1993, An Introduction to the Bootstrap) over users.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from training.metrics.metrics import BINS, FALSE_POSITIVE_RATE, find_runs, row_log_loss
from training.stats.served_scores import Floats, LabelledScores, ServedScore, collect_labelled_scores
from training.trainer.evaluation import ALARM_GRAPHS

DRAWS: Final = 500
CONFIDENCE: Final = 95.0
LESS_IS_BETTER: Final = ("log_loss", "ece")
TrialMode = Literal["shadow", "canary"]


class MetricComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of both models, and the difference of the challenger to the serving one with its interval of 95 %.

    None: it has no meaning, for example an AUC without a positive.
    """

    serving: float | None
    challenger: float | None
    difference: float | None
    low: float | None
    high: float | None
    is_better: bool | None  # whether the whole interval speaks for the challenger; None: for neither


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Rows and users with a label, of the serving model and of the challenger; in a shadow they are the same."""

    rows: tuple[int, int]
    users: tuple[int, int]
    figures: dict[str, MetricComparison]


class ModelComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions on one way of a trial, task by task."""

    way: TrialMode
    serving: str
    challenger: str
    tasks: dict[str, TaskComparison]


class WeightedMetrics:
    """Weighs what one model said: figures for whatever the users count."""

    def __init__(self, scores: LabelledScores, *, is_alarm: bool) -> None:
        order = np.argsort(-scores.p, kind="stable")
        self._y, self._p = scores.y[order], scores.p[order]
        self._weight, self._user = scores.weight[order], scores.user[order]
        self._loss = row_log_loss(self._y, self._p)
        self._start, _ = find_runs(np.zeros(len(order)), self._p)
        self._bin_number = assign_bins(self._p)
        self._is_alarm = is_alarm

    def evaluate(self, user_counts: npt.NDArray[np.int64]) -> dict[str, float]:
        """The figures where user u counts `count[u]` times; NaN without a meaning."""
        w = self._weight * user_counts[self._user]
        if not w.sum():
            return {}
        metrics = {"log_loss": float(np.average(self._loss, weights=w)), "ece": self._calibration_error(w)}
        hits, misses = (np.add.reduceat(w * target, self._start) for target in (self._y, 1 - self._y))
        positives, negatives = hits.sum(), misses.sum()
        both = positives > 0 and negatives > 0
        below = negatives - np.cumsum(misses) + misses / 2
        metrics["auc"] = float((hits * below).sum() / (positives * negatives)) if both else float("nan")
        if self._is_alarm:
            allowed = np.cumsum(misses) <= FALSE_POSITIVE_RATE * negatives
            reached = np.cumsum(hits)[allowed].max(initial=0)
            metrics["recall_fpr_1"] = float(reached / positives) if both else float("nan")
        return metrics

    def _calibration_error(self, w: Floats) -> float:
        """The mean gap of predicted and observed over ten bins of about equally many rows."""
        predicted, observed = (
            np.bincount(self._bin_number, weights=w * values, minlength=BINS) for values in (self._p, self._y)
        )
        return float(np.abs(predicted - observed).sum() / w.sum())


def assign_bins(p: Floats) -> npt.NDArray[np.int64]:
    """The bin (N,) of each prediction, equal ones in one bin; see `training.metrics.metrics.reliability`."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    bin_numbers: npt.NDArray[np.int64] = np.minimum(middle * BINS / max(len(p), 1), BINS - 1).astype(np.int64)[inverse]
    return bin_numbers


def compare_models(
    rows: Sequence[ServedScore], tasks: Sequence[Task], serving: str, challenger: str, *, seed: int, draws: int = DRAWS
) -> list[ModelComparison]:
    """The shadow and the canary of two versions, as far as these examples know of any."""
    shadow_rows = [row for row in rows if (row.model_version, row.shadow_version) == (serving, challenger)]
    canary_rows = select_exclusive_users(rows, serving, challenger)
    comparisons = list[ModelComparison]()
    modes: tuple[tuple[TrialMode, list[ServedScore]], ...] = (("shadow", shadow_rows), ("canary", canary_rows))
    for mode, mode_rows in modes:
        by_task = {
            task.name: comparison
            for task in tasks
            if task.kind in ("binary", "graded")
            and (
                comparison := compare_task(
                    task, *select_scores(mode, task, mode_rows, serving, challenger), mode, seed, draws
                )
            )
        }
        if by_task:
            comparisons.append(ModelComparison(way=mode, serving=serving, challenger=challenger, tasks=by_task))
    return comparisons


def select_exclusive_users(rows: Sequence[ServedScore], serving: str, challenger: str) -> list[ServedScore]:
    """Rows that either model answered, of the time in which both did, of users who met one of them alone."""
    answered = [row for row in rows if row.model_version in (serving, challenger)]
    times = [[row.ts_ms for row in answered if row.model_version == version] for version in (serving, challenger)]
    if not all(times):
        return []
    begin_ms, end_ms = max(map(min, times)), min(map(max, times))
    answered = [row for row in answered if begin_ms <= row.ts_ms <= end_ms]
    versions_by_user: dict[str, set[str]] = {}
    for row in answered:
        versions_by_user.setdefault(row.user_id, set()).add(row.model_version)
    return [row for row in answered if len(versions_by_user[row.user_id]) == 1]


def select_scores(
    mode: str, task: Task, rows: Sequence[ServedScore], serving: str, challenger: str
) -> tuple[LabelledScores, LabelledScores]:
    """What the serving model and the challenger said of their rows."""
    if mode == "canary":
        first, second = ([row for row in rows if row.model_version == version] for version in (serving, challenger))
        scores = ([row.served.get(task.name) for row in version_rows] for version_rows in (first, second))
        return collect_labelled_scores(task, first, next(scores)), collect_labelled_scores(task, second, next(scores))
    both = [row for row in rows if task.name in row.served and task.name in row.shadow]
    both = [row for row in both if np.isfinite([row.served[task.name], row.shadow[task.name]]).all()]
    return (
        collect_labelled_scores(task, both, [row.served[task.name] for row in both]),
        collect_labelled_scores(task, both, [row.shadow[task.name] for row in both]),
    )


def compare_task(
    task: Task, serving: LabelledScores, challenger: LabelledScores, mode: TrialMode, seed: int, draws: int
) -> TaskComparison | None:
    """The figures of one task; None where one of them has no row."""
    if not len(serving.y) or not len(challenger.y):
        return None
    is_alarm = task.graph in ALARM_GRAPHS
    first, second = WeightedMetrics(serving, is_alarm=is_alarm), WeightedMetrics(challenger, is_alarm=is_alarm)
    rng, users = np.random.default_rng(seed), (serving.users, challenger.users)
    unit_counts = [np.ones(count, np.int64) for count in users]
    samples = list[tuple[dict[str, float], dict[str, float]]]()
    for _ in range(draws):
        count = resample_users(users[0], rng)
        samples.append(
            (first.evaluate(count), second.evaluate(count if mode == "shadow" else resample_users(users[1], rng)))
        )
    estimates = first.evaluate(unit_counts[0]), second.evaluate(unit_counts[1])
    return TaskComparison(
        rows=(len(serving.y), len(challenger.y)),
        users=users,
        figures={name: compare_metric(name, *estimates, samples) for name in estimates[0]},
    )


def resample_users(users: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """How often each user is drawn, of as many draws as there are users."""
    return np.bincount(rng.integers(0, users, users), minlength=users)


def compare_metric(
    name: str,
    serving: dict[str, float],
    challenger: dict[str, float],
    samples: Sequence[tuple[dict[str, float], dict[str, float]]],
) -> MetricComparison:
    differences = np.array(
        [
            challenger_values.get(name, np.nan) - serving_values.get(name, np.nan)
            for serving_values, challenger_values in samples
        ]
    )
    differences = differences[np.isfinite(differences)]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(differences, (tail, 100 - tail)) if len(differences) else (np.nan, np.nan)
    sign = -1 if name in LESS_IS_BETTER else 1
    is_better = True if min(low * sign, high * sign) > 0 else False if max(low * sign, high * sign) < 0 else None
    return MetricComparison(
        serving=finite_or_none(serving[name]),
        challenger=finite_or_none(challenger[name]),
        difference=finite_or_none(challenger[name] - serving[name]),
        low=finite_or_none(low),
        high=finite_or_none(high),
        is_better=is_better,
    )


def finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
