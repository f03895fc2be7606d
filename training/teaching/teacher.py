"""A teacher of the network: the probabilities that gradient-boosted trees give to rows that they have not seen.

Of some ten thousand rows with few positives a network learns the noise of single labels before it finds conditions that
trees find at once. So it learns the trees' probabilities in place of the labels (distillation: Hinton, Vinyals and Dean
2015). Each is from trees of other users' rows (out of fold, as in stacking: Wolpert 1992), since trees repeat the
labels of the rows that they are fitted on.
"""

from typing import Any, Final

import lightgbm
import numpy as np

from contract.arrays import Array, Floats
from contract.graphs import GRAPHS
from contract.tasks import Task
from training.data.examples import Examples
from training.data.users import index_users
from training.teaching.tree_features import PARAMETERS, TreeFeatures, choose_leaf_rows

FOLDS: Final = 5
ROUNDS: Final = 100
POSITIVES_MIN: Final = 50  # and negatives, of the rows that trees are fitted on
LEAVES: Final = 15  # few and small trees: nothing is held out to stop them by


def can_be_taught(task: Task, examples: Examples) -> bool:
    """Whether trees can be fitted for a task, and would be about what it is about."""
    if task.kind != "binary" or not GRAPHS[task.graph].is_rare_positive or task.through:
        return False
    y = examples.labels[task.name][examples.has_label(task)]
    positives = int((y > 0).sum())
    return min(positives, len(y) - positives) >= POSITIVES_MIN


def predict_by_trees(task: Task, training: Examples, others: Examples, threads: int, seed: int) -> Floats:
    """The probabilities (N,) of the others, by trees of the labelled rows of the training part."""
    labelled = training.take(training.has_label(task))
    features = TreeFeatures.fit(task, labelled)
    trees = fit_trees(features, features.to_matrix(labelled), labelled.labels[task.name], threads, seed)
    p: Floats = trees.predict(features.to_matrix(others))
    return p


def teach(task: Task, examples: Examples, threads: int, seed: int) -> Examples:
    """The examples with the probabilities of a task in place of its labels; unlabelled rows stay so."""
    rows = np.flatnonzero(examples.has_label(task))
    labelled = examples.take(rows)
    features, y = TreeFeatures.fit(task, labelled), labelled.labels[task.name]
    matrix, fold = features.to_matrix(labelled), assign_folds(labelled, seed)
    p = np.zeros(len(rows))
    for number in range(FOLDS):
        is_own = fold == number
        if is_own.any():
            p[is_own] = fit_trees(features, matrix[~is_own], y[~is_own], threads, seed).predict(matrix[is_own])
    taught = examples.labels[task.name].copy()
    taught[rows] = p
    return examples.with_labels({**examples.labels, task.name: taught})


def assign_folds(examples: Examples, seed: int) -> Array:
    """The fold of each row (N,); all rows of a user are in one."""
    user = index_users(examples)
    folds: Array = np.random.default_rng(seed).permutation(int(user.max(initial=0)) + 1)[user] % FOLDS
    return folds


def fit_trees(features: TreeFeatures, matrix: Array, y: Array, threads: int, seed: int) -> Any:
    """A booster of `ROUNDS` trees."""
    parameters = {
        **PARAMETERS,
        "objective": "binary",
        "num_leaves": LEAVES,
        "num_threads": threads,
        "seed": seed,
        "min_child_samples": choose_leaf_rows(len(y)),
    }
    dataset = lightgbm.Dataset(matrix, y, categorical_feature=features.category_columns, free_raw_data=False)
    return lightgbm.train(parameters, dataset, ROUNDS)
