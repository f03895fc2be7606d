"""Runs of a comparison: each method on each fold with each seed, judged by the figures of each task."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from training.evaluation import Evaluation, judge, weighted_score
from training.examples import Examples
from training.folds import Fold
from training.methods import Method, Predictions


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One method that learned once. `seconds` of CPU, predicting included; `score` is None if it has no meaning."""

    method: str
    fold: int
    seed: int
    score: float | None
    tasks: Evaluation
    judged_to_learned: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What curves are drawn of: the last fold, and what each method said of it with the first seed."""

    judging: Examples
    predictions: Mapping[str, Predictions]


def crossed(
    folds: Iterable[Fold], methods: Mapping[str, Method], seeds: Sequence[int], report: Callable[[Run], None]
) -> tuple[list[Run], Shown]:
    """All runs, in the order of folds, seeds and methods; `report` hears of each as it ends."""
    runs, first, shown = list[Run](), dict[str, Predictions](), None
    for fold in folds:
        for seed in seeds:
            for name, method in methods.items():
                began = time.process_time()
                predictions = method(fold.learning, fold.judging, seed)
                runs.append(judged(name, fold, seed, predictions, time.process_time() - began))
                report(runs[-1])
                if seed == seeds[0]:
                    first[name] = predictions
        shown = Shown(fold.judging, dict(first))
    if shown is None:
        raise ValueError("There should be some fold. Found none.")
    return runs, shown


def judged(method: str, fold: Fold, seed: int, predictions: Predictions, seconds: float) -> Run:
    tasks = [task for task in fold.judging.tasks if task.name in predictions]
    found = judge(tasks, fold.judging, predictions)
    score = weighted_score(tasks, found)  # NaN if it has no meaning
    return Run(
        method=method,
        fold=fold.number,
        seed=seed,
        score=None if math.isnan(score) else score,
        tasks=found,
        judged_to_learned=fold.judged_to_learned,
        seconds=round(seconds, 2),
    )
