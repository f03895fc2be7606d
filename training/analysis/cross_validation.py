"""Runs each method on each fold with each seed, and evaluates its predictions."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from contract.arrays import Predictions
from training.analysis.baselines import Method
from training.data.examples import Examples
from training.data.folds import Fold
from training.trainer.evaluation import Evaluation, compute_weighted_score, evaluate_predictions


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run of a method. `seconds` of CPU, prediction included; `score` is None if undefined."""

    method: str
    fold: int
    seed: int
    score: float | None
    tasks: Evaluation
    judged_to_learned: float
    seconds: float


@dataclass(frozen=True, slots=True)
class CurveData:
    """The data of curves: the validation part of the last fold, and each method's predictions with the first seed."""

    validation: Examples
    predictions: Mapping[str, Predictions]


def cross_validate(
    folds: Iterable[Fold], methods: Mapping[str, Method], seeds: Sequence[int], report: Callable[[Run], None]
) -> tuple[list[Run], CurveData]:
    """All runs in the order of folds, seeds and methods; `report` is called with each as it ends."""
    runs, first_seed = list[Run](), dict[str, Predictions]()
    curve_data = None
    for fold in folds:
        for seed in seeds:
            for name, method in methods.items():
                started_s = time.process_time()
                predictions = method(fold.training, fold.validation, seed)
                runs.append(evaluate_run(name, fold, seed, predictions, time.process_time() - started_s))
                report(runs[-1])
                if seed == seeds[0]:
                    first_seed[name] = predictions
        curve_data = CurveData(fold.validation, dict(first_seed))
    if curve_data is None:
        raise ValueError("There should be at least one fold. Found none.")
    return runs, curve_data


def evaluate_run(method: str, fold: Fold, seed: int, predictions: Predictions, seconds: float) -> Run:
    tasks = [task for task in fold.validation.tasks if task.name in predictions]
    evaluation = evaluate_predictions(tasks, fold.validation, predictions)
    score = compute_weighted_score(tasks, evaluation)
    return Run(
        method=method,
        fold=fold.number,
        seed=seed,
        score=None if math.isnan(score) else score,
        tasks=evaluation,
        judged_to_learned=fold.validation_ratio,
        seconds=round(seconds, 2),
    )
