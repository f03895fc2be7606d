"""Comparing methods over runs: mean and spread of each figure, and whether a difference is more than chance.

Runs are paired: the same fold, judged by the same rows, and the same seed. Folds share what they learn from, so the
usual paired t test finds too much; the variance is corrected as Nadeau and Bengio (2003, Inference for the
Generalization Error) do: 1/n becomes 1/n + judged/learned.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from contract.tasks import Task
from training.analysis.cross_validation import Run

FoldAndSeed = tuple[int, int]  # fold, seed
SCORE: Final = "score"
ALL: Final = "all"  # stands for the task of the weighted score
LOWER_IS_BETTER: Final = ("rmse", "log_loss", "ece")


class Spread(msgspec.Struct, frozen=True):
    """A figure over runs. `seeds_sd`: of the seeds' means over folds; `folds_sd`: of the folds' means over seeds.

    A deviation of one value alone is None.
    """

    mean: float
    seeds_sd: float | None
    folds_sd: float | None
    runs: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of one method less that of another in paired runs; `p` of no difference, None if it has no meaning."""

    task: str
    figure: str
    method: str
    other: str
    mean: float
    sd: float | None
    p: float | None
    runs: int
    better: bool  # the sign alone: whether the mean speaks for `method`


def choose_headline(task: Task) -> str:
    """The figure that says most of a task."""
    if task.kind == "binary" and task.graph in ("decide", "review"):
        return "average_precision"
    return {"binary": "auc", "graded": "ndcg_10", "multiclass": "macro_f1", "regression": "rmse"}[task.kind]


def collect_metric(runs: Iterable[Run], method: str, task: str, figure: str) -> dict[FoldAndSeed, float]:
    """A figure of each of the method's runs that has it."""
    values = dict[FoldAndSeed, float]()
    for run in runs:
        value = run.score if task == ALL else run.tasks.get(task, {}).get(figure)
        if run.method == method and value is not None:
            values[run.fold, run.seed] = value
    return values


def measure_spread(values: dict[FoldAndSeed, float]) -> Spread:
    """Mean and deviations of a figure; raises ValueError for none."""
    if not values:
        raise ValueError("A figure should be there in some run. Found it in none.")
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
    """The paired difference; None when no fold and seed has the figure of both."""
    ours, theirs = (collect_metric(runs, name, task, figure) for name in (method, other))
    if not (pairs := sorted(ours.keys() & theirs.keys() & find_comparable(runs, task, method, other))):
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
    """Where both may be compared: the score of all tasks only where both answered the same ones."""
    answered: dict[FoldAndSeed, list[set[str]]] = {}
    for run in runs:
        if run.method in (method, other):
            answered.setdefault((run.fold, run.seed), []).append(set(run.tasks))
    return {
        pair
        for pair, tasks in answered.items()
        if task != ALL or all(answered_tasks == tasks[0] for answered_tasks in tasks)
    }


def p_value(differences: npt.NDArray[np.float64], judged_to_learned: float) -> float | None:
    """Two-sided, of paired differences (n,) with mean 0; None for fewer than two or where all are equal."""
    n = len(differences)
    if n < 2 or (differences == differences[0]).all():
        return None
    variance = float(differences.var(ddof=1))
    t = float(differences.mean()) / math.sqrt((1 / n + judged_to_learned) * variance)
    return float(2 * stats.t.sf(abs(t), n - 1))


def compare_all(runs: Sequence[Run], tasks: Sequence[Task], method: str, others: Sequence[str]) -> list[Difference]:
    """Of the score, and of each task's headline and gain, against each other method."""
    figures = [(ALL, SCORE), *((task.name, figure) for task in tasks for figure in (choose_headline(task), "gain"))]
    results = [compare_methods(runs, task, figure, method, other) for other in others for task, figure in figures]
    return [result for result in results if result is not None]
