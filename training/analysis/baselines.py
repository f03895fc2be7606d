"""The methods that `training evaluate` compares: each trains on some examples and predicts others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, TypeAlias

import msgspec
import numpy as np

from contract.arrays import Array, Mask, Predictions
from contract.errors import BadData
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from training.analysis.lightgbm_baseline import lightgbm_trees
from training.data.examples import Examples
from training.teaching.taught_fit import fit_taught
from training.trainer.batching import FAMILY_SHARE_DIVISOR
from training.trainer.fit import Epoch
from training.trainer.learner import predict

Method: TypeAlias = Callable[[Examples, Examples, int], Predictions]  # training and validation part, seed

OURS: Final = "ours"
SINGLE: Final = "single-task"
TREES: Final = "LightGBM"
METHODS: Final = (OURS, SINGLE, TREES)


def build_methods(model_config: ModelConfig, config: TrainingConfig) -> Mapping[str, Method]:
    """The declared network, the same without anything shared, and trees, by name. Tasks not learnable are absent."""
    return {
        OURS: multi_task_network(model_config, config),
        SINGLE: single_task_networks(model_config, config),
        TREES: lightgbm_trees(config),
    }


def multi_task_network(model_config: ModelConfig, config: TrainingConfig) -> Method:
    """One network of the declared shape for all tasks."""

    def fit_predict(training: Examples, validation: Examples, seed: int) -> Predictions:
        network = fit_taught(training, model_config, config.model_copy(update={"seed": seed}), ignore_epoch).network
        rows = mask_labelled(validation, network.tasks)
        if not rows.any():
            return {}
        return scatter_predictions(predict(network, validation.for_tasks(network.tasks)), rows)

    return fit_predict


def single_task_networks(model_config: ModelConfig, config: TrainingConfig) -> Method:
    """A network for each task, of the declared width, trained on that task's labels alone."""
    single = model_config.model_copy(update={"architecture": "single"})

    def fit_predict(training: Examples, validation: Examples, seed: int) -> Predictions:
        predictions = dict[str, Array]()
        for task in training.tasks:
            own_examples = select_task(training, task)
            own_config = match_steps(config, int(own_examples.has_label(task).sum()), len(training))
            try:
                predictions |= multi_task_network(single, own_config)(own_examples, select_task(validation, task), seed)
            except BadData:  # the task is not learnable in this fold: it gets no predictions
                continue
        return predictions

    return fit_predict


def match_steps(config: TrainingConfig, rows: int, total_rows: int) -> TrainingConfig:
    """The config for a task with `rows` of `total_rows` labels: as many steps, with as many of its rows in each.

    Otherwise a small task alone would train for a handful of steps, and multi-task learning would seem to gain what
    only more steps do.
    """
    share = max(rows / total_rows, 1 / FAMILY_SHARE_DIVISOR)
    rounds = max(1, round(share * total_rows / max(rows, 1)))
    return config.model_copy(
        update={
            "batch": max(1, round(config.batch * share)),
            "epochs": config.epochs * rounds,
            "patience": config.patience * rounds,
        }
    )


def select_task(examples: Examples, task: Task) -> Examples:
    """The examples with one standalone task; all rows stay, so that predictions keep their positions."""
    standalone = msgspec.structs.replace(task, through=None, alone=(), experts=None)
    return replace(
        examples,
        tasks=(standalone,),
        labels={task.name: examples.labels[task.name]},
        known_ms={task.name: examples.known_ms[task.name]},
        classes={name: names for name, names in examples.classes.items() if name == task.name},
    )


def mask_labelled(examples: Examples, tasks: tuple[Task, ...]) -> Mask:
    """Which rows (N,) `Examples.for_tasks` keeps."""
    labelled: Mask = np.any([examples.has_label(task) for task in tasks], axis=0)
    return labelled


def scatter_predictions(predictions: Predictions, rows: Mask) -> Predictions:
    """Predictions of the masked rows at their positions among all rows, NaN elsewhere."""
    scattered = dict[str, Array]()
    for task, p in predictions.items():
        scattered[task] = np.full((len(rows), *p.shape[1:]), np.nan, p.dtype)
        scattered[task][rows] = p
    return scattered


def ignore_epoch(_: Epoch) -> None:
    """Epochs of baselines are not reported."""
