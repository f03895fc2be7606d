"""LightGBM baseline: an ensemble of gradient-boosted trees for each task, on the same features and rows.

Early stopping uses the latest of the training rows, as the network does to select its epoch.
"""

from collections.abc import Callable
from typing import Final

import lightgbm
import numpy as np

from contract.arrays import Array, Predictions
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from training.data.examples import Examples
from training.data.split import find_learnable, split_by_time
from training.teaching.tree_features import PARAMETERS, TreeFeatures, choose_leaf_rows

LEAVES: Final = 31  # of a tree; early stopping finds how many trees
TREES_MAX: Final = 1_000
PATIENCE: Final = 40
OBJECTIVES: Final = {"binary": "binary", "graded": "cross_entropy", "multiclass": "multiclass", "regression": "l2"}


def lightgbm_trees(config: TrainingConfig) -> Callable[[Examples, Examples, int], Predictions]:
    """A method of `training.analysis.baselines`: trains on the first examples and predicts the second."""

    def fit_predict(training: Examples, validation: Examples, seed: int) -> Predictions:
        split = split_by_time(training, config.held_out)
        earlier, stopping = training.take(split.training), training.take(split.validation)
        return {
            task.name: fit_predict_task(task, (earlier, stopping, validation), config.threads, seed)
            for task in find_learnable(earlier)[0]
            if stopping.has_label(task).any() and validation.has_label(task).any()
        }

    return fit_predict


def fit_predict_task(task: Task, parts: tuple[Examples, Examples, Examples], threads: int, seed: int) -> Array:
    """Predictions (N,) or (N, classes) for the third part, of trees trained on the first and stopped by the second.

    NaN for rows without a label of the task.
    """
    masks = [part.has_label(task) for part in parts]
    training, stopping, validation = (part.take(mask) for part, mask in zip(parts, masks, strict=True))
    features = TreeFeatures.fit(task, training)
    parameters = {**PARAMETERS, "num_leaves": LEAVES, "objective": OBJECTIVES[task.kind]}
    parameters |= {"num_threads": threads, "seed": seed}
    parameters["min_child_samples"] = choose_leaf_rows(len(training))
    if task.kind == "multiclass":
        parameters["num_class"] = len(training.classes[task.name])
    training_set = lightgbm.Dataset(
        features.to_matrix(training),
        training.labels[task.name],
        categorical_feature=features.category_columns,
        free_raw_data=False,
    )
    stopping_set = lightgbm.Dataset(features.to_matrix(stopping), stopping.labels[task.name], reference=training_set)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(parameters, training_set, TREES_MAX, valid_sets=[stopping_set], callbacks=[stop])
    predictions = np.asarray(booster.predict(features.to_matrix(validation)))
    scattered = np.full((len(parts[2]), *predictions.shape[1:]), np.nan)
    scattered[masks[2]] = predictions
    return scattered
