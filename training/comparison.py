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
from training.crossing import Run

Pair = tuple[int, int]  # fold, seed
SCORE: Final = "score"
ALL: Final = "all"  # stands for the task of the weighted score
LESS_IS_BETTER: Final = ("rmse", "log_loss", "ece")


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


def headline(task: Task) -> str:
    """The figure that says most of a task."""
    if task.kind == "binary" and task.graph in ("decide", "review"):
        return "average_precision"
    return {"binary": "auc", "graded": "ndcg_10", "multiclass": "macro_f1", "regression": "rmse"}[task.kind]


def figure_of(runs: Iterable[Run], method: str, task: str, figure: str) -> dict[Pair, float]:
    """A figure of each of the method's runs that has it."""
    found = dict[Pair, float]()
    for run in runs:
        value = run.score if task == ALL else run.tasks.get(task, {}).get(figure)
        if run.method == method and value is not None:
            found[run.fold, run.seed] = value
    return found


def spread(values: dict[Pair, float]) -> Spread:
    """Mean and deviations of a figure; raises ValueError for none."""
    if not values:
        raise ValueError("A figure should be there in some run. Found it in none.")
    by_fold, by_seed = grouped(values, 0), grouped(values, 1)
    mean = float(np.mean(list(values.values())))
    return Spread(mean, deviation(by_seed), deviation(by_fold), len(values))


def grouped(values: dict[Pair, float], by: int) -> list[float]:
    """The mean of each fold (by = 0) or seed (by = 1)."""
    found: dict[int, list[float]] = {}
    for pair, value in values.items():
        found.setdefault(pair[by], []).append(value)
    return [float(np.mean(of)) for of in found.values()]


def deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def difference(runs: Sequence[Run], task: str, figure: str, method: str, other: str) -> Difference | None:
    """The paired difference; None when no fold and seed has the figure of both."""
    ours, theirs = (figure_of(runs, name, task, figure) for name in (method, other))
    if not (pairs := sorted(ours.keys() & theirs.keys() & comparable(runs, task, method, other))):
        return None
    each = np.array([ours[pair] - theirs[pair] for pair in pairs])
    share = float(np.mean([run.judged_to_learned for run in runs if run.method == method]))
    mean = float(each.mean())
    return Difference(
        task=task,
        figure=figure,
        method=method,
        other=other,
        mean=mean,
        sd=deviation(each.tolist()),
        p=p_value(each, share),
        runs=len(each),
        better=mean < 0 if figure in LESS_IS_BETTER else mean > 0,
    )


def comparable(runs: Iterable[Run], task: str, method: str, other: str) -> set[Pair]:
    """Where both may be compared: the score of all tasks only where both answered the same ones."""
    answered: dict[Pair, list[set[str]]] = {}
    for run in runs:
        if run.method in (method, other):
            answered.setdefault((run.fold, run.seed), []).append(set(run.tasks))
    return {pair for pair, tasks in answered.items() if task != ALL or all(one == tasks[0] for one in tasks)}


def p_value(each: npt.NDArray[np.float64], judged_to_learned: float) -> float | None:
    """Two-sided, of paired differences (n,) with mean 0; None for fewer than two or where all are equal."""
    n = len(each)
    if n < 2 or (each == each[0]).all():
        return None
    variance = float(each.var(ddof=1))
    t = float(each.mean()) / math.sqrt((1 / n + judged_to_learned) * variance)
    return float(2 * stats.t.sf(abs(t), n - 1))


def differences(runs: Sequence[Run], tasks: Sequence[Task], method: str, others: Sequence[str]) -> list[Difference]:
    """Of the score, and of each task's headline and gain, against each other method."""
    wanted = [(ALL, SCORE), *((task.name, figure) for task in tasks for figure in (headline(task), "gain"))]
    found = [difference(runs, task, figure, method, other) for other in others for task, figure in wanted]
    return [one for one in found if one is not None]
