"""Ways of answering the tasks that are compared: each learns from some examples and predicts others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace as changed

from contract.errors import BadData
from contract.settings import ModelConfig, TrainingConfig
from contract.tasks import Task
from training.analysis.lightgbm_baseline import lightgbm_trees
from training.data.examples import Examples
from training.trainer.fit import Epoch, fit
from training.trainer.learner import FAMILY_SHARE_DIVISOR, predict

Predictions: TypeAlias = dict[str, npt.NDArray[Any]]  # (N,) or (N, classes); of tasks that were not learnable: none
Method: TypeAlias = Callable[[Examples, Examples, int], Predictions]  # learning, judging, seed

OURS: Final = "ours"
SINGLE: Final = "single-task"
TREES: Final = "LightGBM"


def build_methods(shape: ModelConfig, plan: TrainingConfig) -> Mapping[str, Method]:
    """The declared network, the same without anything shared, and trees, by the names that pages show."""
    return {
        OURS: multi_task_network(shape, plan),
        SINGLE: single_task_networks(shape, plan),
        TREES: lightgbm_trees(plan),
    }


def multi_task_network(shape: ModelConfig, plan: TrainingConfig) -> Method:
    """One network of the declared shape for all tasks."""

    def fit_predict(learning: Examples, judging: Examples, seed: int) -> Predictions:
        network = fit(learning, shape, plan.model_copy(update={"seed": seed}), ignore_epoch).network
        if not (rows := mask_labelled(judging, network.tasks)).any():
            return {}
        return scatter_predictions(predict(network, judging.for_tasks(network.tasks)), rows)

    return fit_predict


def single_task_networks(shape: ModelConfig, plan: TrainingConfig) -> Method:
    """A network for each task, as wide as the declared one, that sees no other task's label."""
    single = shape.model_copy(update={"architecture": "single"})

    def fit_predict(learning: Examples, judging: Examples, seed: int) -> Predictions:
        predictions = Predictions()
        for task in learning.tasks:
            own_examples = select_task(learning, task)
            own_plan = match_steps(plan, int(own_examples.has_label(task).sum()), len(learning))
            try:
                predictions |= multi_task_network(single, own_plan)(own_examples, select_task(judging, task), seed)
            except BadData:  # nothing to learn of this task here: it stays without an answer
                continue
        return predictions

    return fit_predict


def match_steps(plan: TrainingConfig, rows: int, total_rows: int) -> TrainingConfig:
    """The plan that meets `rows` of a task as often, and as many a step, as the given one does among `everything`.

    Else a small task alone would learn in a handful of steps, and learning together would seem to gain what only more
    steps do.
    """
    share = max(rows / total_rows, 1 / FAMILY_SHARE_DIVISOR)
    rounds = max(1, round(share * total_rows / max(rows, 1)))
    return plan.model_copy(
        update={
            "batch": max(1, round(plan.batch * share)),
            "epochs": plan.epochs * rounds,
            "patience": plan.patience * rounds,
        }
    )


def select_task(examples: Examples, task: Task) -> Examples:
    """The examples with one task that stands by itself; rows stay, so that predictions keep their places."""
    standalone = changed(task, through=None, alone=(), experts=None)
    return replace(
        examples,
        tasks=(standalone,),
        labels={task.name: examples.labels[task.name]},
        known_ms={task.name: examples.known_ms[task.name]},
        classes={name: names for name, names in examples.classes.items() if name == task.name},
    )


def mask_labelled(examples: Examples, tasks: tuple[Task, ...]) -> npt.NDArray[np.bool_]:
    """Which rows (N,) `for_tasks` keeps."""
    labelled: npt.NDArray[np.bool_] = np.any([examples.has_label(task) for task in tasks], axis=0)
    return labelled


def scatter_predictions(predictions: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.bool_]) -> Predictions:
    """Predictions of some rows at their places among all, NaN elsewhere."""
    scattered = Predictions()
    for task, p in predictions.items():
        scattered[task] = np.full((len(rows), *p.shape[1:]), np.nan, p.dtype)
        scattered[task][rows] = p
    return scattered


def ignore_epoch(_: Epoch) -> None:
    """What an epoch has to say is not wanted here."""
