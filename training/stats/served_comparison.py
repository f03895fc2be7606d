"""Compares two models by the scores that they served, and tests whether the difference is more than chance.

In shadow mode both models scored the same rows, so draws are paired. In canary mode each model has users of its own.
Intervals are percentiles of a bootstrap over users.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from contract.arrays import Floats, Integers
from contract.graphs import GRAPHS
from contract.tasks import Task
from training.metrics.calibration import assign_bins, bin_error
from training.metrics.losses import row_log_losses
from training.metrics.ranking import RankedRows
from training.stats.bootstrap import percentile_interval, resample
from training.stats.served_scores import LabelledScores, ServedScore, collect_labelled_scores

DRAWS: Final = 500
LOWER_IS_BETTER: Final = ("log_loss", "ece")
TrialMode = Literal["shadow", "canary"]
Metrics = dict[str, float]
MetricSamples = Sequence[tuple[Metrics, Metrics]]  # of the serving model and the challenger, for each draw


class MetricComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of both models, and the challenger's minus the serving model's with its 95 % interval.

    None: undefined, for example an AUC without positives.
    """

    serving: float | None
    challenger: float | None
    difference: float | None
    low: float | None
    high: float | None
    is_better: bool | None  # the sign of the whole interval, True for the challenger; None where it contains 0


class TaskComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled rows and their users, of the serving model and of the challenger; equal in shadow mode."""

    rows: tuple[int, int]
    users: tuple[int, int]
    figures: dict[str, MetricComparison]


class ModelComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions in one mode of a trial, by task."""

    way: TrialMode
    serving: str
    challenger: str
    tasks: dict[str, TaskComparison]


class WeightedMetrics:
    """Metrics of one model's scores for any weighting of the users; sorting and binning are done once."""

    def __init__(self, scores: LabelledScores, *, is_rare_positive: bool) -> None:
        self._scores, self._is_rare_positive = scores, is_rare_positive
        self._loss = row_log_losses(scores.y, scores.p)
        self._ranked = RankedRows(scores.y, scores.p)
        self._bin_number = assign_bins(scores.p)

    def evaluate(self, user_counts: Integers) -> Metrics:
        """The metrics where user u counts `user_counts[u]` times; NaN where undefined, empty without rows."""
        y, p = self._scores.y, self._scores.p
        weights: Floats = self._scores.weight * user_counts[self._scores.user]
        if not weights.sum():
            return {}
        auc = float(self._ranked.aucs(weights)[0])
        metrics = {
            "log_loss": float(np.average(self._loss, weights=weights)),
            "ece": bin_error(y, p, self._bin_number, weights),
            "auc": auc,
        }
        if self._is_rare_positive:
            metrics["recall_fpr_1"] = self._ranked.recall_at_fpr(weights)
        return metrics


def compare_models(
    rows: Sequence[ServedScore], tasks: Sequence[Task], serving: str, challenger: str, *, seed: int, draws: int = DRAWS
) -> list[ModelComparison]:
    """Compare two versions in shadow and in canary mode, as far as there are rows of either."""
    shadow_rows = [row for row in rows if (row.model_version, row.shadow_version) == (serving, challenger)]
    canary_rows = select_exclusive_users(rows, serving, challenger)
    comparisons = list[ModelComparison]()
    modes: tuple[tuple[TrialMode, list[ServedScore]], ...] = (("shadow", shadow_rows), ("canary", canary_rows))
    for mode, mode_rows in modes:
        by_task = dict[str, TaskComparison]()
        for task in tasks:
            if task.kind in ("binary", "graded"):
                scores = select_scores(mode, task, mode_rows, serving, challenger)
                comparison = compare_task(task, *scores, mode, seed, draws)
                if comparison:
                    by_task[task.name] = comparison
        if by_task:
            comparisons.append(ModelComparison(way=mode, serving=serving, challenger=challenger, tasks=by_task))
    return comparisons


def select_exclusive_users(rows: Sequence[ServedScore], serving: str, challenger: str) -> list[ServedScore]:
    """The rows of users that only one of the models served, from the time in which both served."""
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
    mode: TrialMode, task: Task, rows: Sequence[ServedScore], serving: str, challenger: str
) -> tuple[LabelledScores, LabelledScores]:
    """The scores of the serving model and of the challenger. In shadow mode: of the rows that both scored."""
    if mode == "canary":
        first, second = ([row for row in rows if row.model_version == version] for version in (serving, challenger))
        return (
            collect_labelled_scores(task, first, [row.served.get(task.name) for row in first]),
            collect_labelled_scores(task, second, [row.served.get(task.name) for row in second]),
        )
    both = [row for row in rows if task.name in row.served and task.name in row.shadow]
    both = [row for row in both if np.isfinite([row.served[task.name], row.shadow[task.name]]).all()]
    return (
        collect_labelled_scores(task, both, [row.served[task.name] for row in both]),
        collect_labelled_scores(task, both, [row.shadow[task.name] for row in both]),
    )


def compare_task(
    task: Task, serving: LabelledScores, challenger: LabelledScores, mode: TrialMode, seed: int, draws: int
) -> TaskComparison | None:
    """The metrics of one task; None where a model has no rows."""
    if not len(serving.y) or not len(challenger.y):
        return None
    is_rare_positive = GRAPHS[task.graph].is_rare_positive
    first = WeightedMetrics(serving, is_rare_positive=is_rare_positive)
    second = WeightedMetrics(challenger, is_rare_positive=is_rare_positive)
    estimates = first.evaluate(np.ones(serving.users, np.int64)), second.evaluate(np.ones(challenger.users, np.int64))
    samples = draw_metrics(first.evaluate, second.evaluate, (serving.users, challenger.users), mode, seed, draws)
    return TaskComparison(
        rows=(len(serving.y), len(challenger.y)),
        users=(serving.users, challenger.users),
        figures={name: compare_metric(name, *estimates, samples) for name in estimates[0]},
    )


def draw_metrics(
    serving: Callable[[Integers], Metrics],
    challenger: Callable[[Integers], Metrics],
    users: tuple[int, int],
    mode: TrialMode,
    seed: int,
    draws: int,
) -> MetricSamples:
    """Both models' metrics for each draw of users: the same draw in shadow mode, independent draws in canary mode."""
    rng = np.random.default_rng(seed)
    samples = list[tuple[Metrics, Metrics]]()
    for _ in range(draws):
        count = resample(users[0], 1, "multinomial", rng)[0]
        challenger_count = count if mode == "shadow" else resample(users[1], 1, "multinomial", rng)[0]
        samples.append((serving(count), challenger(challenger_count)))
    return samples


def compare_metric(name: str, serving: Metrics, challenger: Metrics, samples: MetricSamples) -> MetricComparison:
    differences = np.array([second.get(name, np.nan) - first.get(name, np.nan) for first, second in samples])
    differences = differences[np.isfinite(differences)]
    difference = challenger[name] - serving[name]
    low, high = np.nan, np.nan
    if len(differences):
        _, low, high = percentile_interval(difference, differences)
    return MetricComparison(
        serving=finite_or_none(serving[name]),
        challenger=finite_or_none(challenger[name]),
        difference=finite_or_none(difference),
        low=finite_or_none(low),
        high=finite_or_none(high),
        is_better=find_winner(name, low, high),
    )


def find_winner(name: str, low: float, high: float) -> bool | None:
    """Whether the challenger is better (True), worse (False), or neither beyond chance (None)."""
    if not (low > 0 or high < 0):
        return None
    return (high < 0) if name in LOWER_IS_BETTER else (low > 0)


def finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
