"""Compares methods over cross-validation runs: mean and spread of each metric, and tests of differences.

Runs are paired by fold and seed, so both methods are validated on the same rows. Folds share training data, which makes
the usual paired t test too optimistic; the variance is corrected as in Nadeau and Bengio (2003, Inference for the
Generalization Error): 1/n becomes 1/n + validation rows / training rows.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
from scipy import stats

from contract.arrays import Floats
from contract.graphs import GRAPHS
from contract.tasks import Task
from training.analysis.cross_validation import Run

FoldAndSeed = tuple[int, int]
SCORE: Final = "score"
ALL: Final = "all"  # the task name of the weighted score
LOWER_IS_BETTER: Final = ("rmse", "log_loss", "ece")


class Spread(msgspec.Struct, frozen=True):
    """A metric over runs. `seeds_sd`: of the seeds' means over folds; `folds_sd`: of the folds' means over seeds.

    The deviation of a single value is None.
    """

    mean: float
    seeds_sd: float | None
    folds_sd: float | None
    runs: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of one method minus that of another in paired runs; `p` of no difference, None if undefined."""

    task: str
    figure: str
    method: str
    other: str
    mean: float
    sd: float | None
    p: float | None
    runs: int
    better: bool  # only the sign: whether the mean favours `method`


def choose_headline(task: Task) -> str:
    """The most informative metric of a task."""
    if task.kind == "binary" and GRAPHS[task.graph].is_rare_positive:
        return "average_precision"
    return {"binary": "auc", "graded": "ndcg_10", "multiclass": "macro_f1", "regression": "rmse"}[task.kind]


def collect_metric(runs: Iterable[Run], method: str, task: str, figure: str) -> dict[FoldAndSeed, float]:
    """A metric of each of the method's runs that has it."""
    values = dict[FoldAndSeed, float]()
    for run in runs:
        value = run.score if task == ALL else run.tasks.get(task, {}).get(figure)
        if run.method == method and value is not None:
            values[run.fold, run.seed] = value
    return values


def measure_spread(values: dict[FoldAndSeed, float]) -> Spread:
    """Mean and deviations of a metric; raises ValueError without values."""
    if not values:
        raise ValueError("A metric should be in at least one run. Found it in none.")
    by_fold, by_seed = group_means(values, 0), group_means(values, 1)
    mean = float(np.mean(list(values.values())))
    return Spread(mean, standard_deviation(by_seed), standard_deviation(by_fold), len(values))


def group_means(values: dict[FoldAndSeed, float], by: int) -> list[float]:
    """The mean of each fold (by = 0) or seed (by = 1)."""
    groups: dict[int, list[float]] = {}
    for pair, value in values.items():
        groups.setdefault(pair[by], []).append(value)
    return [float(np.mean(group)) for group in groups.values()]


def standard_deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def compare_methods(runs: Sequence[Run], task: str, figure: str, method: str, other: str) -> Difference | None:
    """The paired difference; None if no fold and seed has the metric of both methods."""
    ours, theirs = collect_metric(runs, method, task, figure), collect_metric(runs, other, task, figure)
    pairs = sorted(ours.keys() & theirs.keys() & find_comparable(runs, task, method, other))
    if not pairs:
        return None
    differences = np.array([ours[pair] - theirs[pair] for pair in pairs])
    test_to_train = float(np.mean([run.judged_to_learned for run in runs if run.method == method]))
    mean = float(differences.mean())
    return Difference(
        task=task,
        figure=figure,
        method=method,
        other=other,
        mean=mean,
        sd=standard_deviation(differences.tolist()),
        p=p_value(differences, test_to_train),
        runs=len(differences),
        better=mean < 0 if figure in LOWER_IS_BETTER else mean > 0,
    )


def find_comparable(runs: Iterable[Run], task: str, method: str, other: str) -> set[FoldAndSeed]:
    """The folds and seeds that both methods have; for the score only with predictions of the same tasks."""
    answered: dict[FoldAndSeed, list[set[str]]] = {}
    for run in runs:
        if run.method in (method, other):
            answered.setdefault((run.fold, run.seed), []).append(set(run.tasks))
    return {
        pair
        for pair, tasks in answered.items()
        if task != ALL or all(answered_tasks == tasks[0] for answered_tasks in tasks)
    }


def p_value(differences: Floats, judged_to_learned: float) -> float | None:
    """The two-sided p of paired differences (n,) under mean 0; None for fewer than two or if all are equal."""
    n = len(differences)
    if n < 2 or (differences == differences[0]).all():
        return None
    variance = float(differences.var(ddof=1))
    t = float(differences.mean()) / math.sqrt((1 / n + judged_to_learned) * variance)
    return float(2 * stats.t.sf(abs(t), n - 1))


def compare_all(runs: Sequence[Run], tasks: Sequence[Task], method: str, others: Sequence[str]) -> list[Difference]:
    """Differences of the score and of each task's headline metric and gain, against each other method."""
    figures = [(ALL, SCORE), *((task.name, figure) for task in tasks for figure in (choose_headline(task), "gain"))]
    results = [compare_methods(runs, task, figure, method, other) for other in others for task, figure in figures]
    return [result for result in results if result is not None]
