"""Whether a network predicts worse than the base rate of its training labels, which no shop should serve.

Both predict the same held-out rows, and their losses are compared by draws of whole users.
Losses decide and not ranking metrics: thresholds, sums and mixtures of lists all read the predictions' level.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from contract.arrays import Array, Floats, Integers
from contract.tasks import Task
from model.base_rate import WORSE_SHARE
from model.network import Network
from training.data.examples import Examples
from training.data.users import index_users
from training.metrics.losses import row_losses
from training.trainer.evaluation import Evaluation
from training.trainer.learner import predict

ROWS_MIN: Final = 50  # labels of a task, as for the promotion gate; fewer show nothing
USERS_MIN: Final = 30  # draws of fewer users say little
CELLS: Final = 1_000  # users are drawn in cells, which bounds the memory
DRAWS: Final = 400  # as for the promotion gate


def measure_worse_share(network: Network, training: Examples, validation: Examples) -> Evaluation:
    """By task, the share of draws of users in which the base rate has the lower loss; absent for too few of them."""
    predictions, users = predict(network, validation), index_users(validation)
    shares: Evaluation = {}
    for task in network.tasks:
        rows = validation.has_label(task)
        known = training.labels[task.name][training.has_label(task)]
        if rows.sum() < ROWS_MIN or len(np.unique(users[rows])) < USERS_MIN or not len(known):
            continue
        y = validation.labels[task.name][rows]
        constant = predict_base_rate(task, known, len(y), predictions[task.name].shape[1:])
        increase = row_losses(task, y, predictions[task.name][rows]) - row_losses(task, y, constant)
        shares[task.name] = {WORSE_SHARE: share_of_draws(increase, users[rows])}
    return shares


def predict_base_rate(task: Task, labels: Array, rows: int, shape: tuple[int, ...]) -> Floats:
    """The mean label for each of `rows` rows, (rows,), or the shares of the classes, (rows, classes)."""
    if task.kind == "multiclass":
        counts = np.bincount(labels, minlength=shape[0]) + 1.0  # a class that only later rows have is possible
        return np.tile(counts / counts.sum(), (rows, 1))
    return np.full(rows, float(np.mean(labels, dtype=np.float64)))


def share_of_draws(increase: Floats, user: Integers) -> float:
    """The share of draws of users in which the sum of `increase` (N,) is above 0; users share `CELLS` cells."""
    _, number = np.unique(user, return_inverse=True)
    sums = np.bincount(number % CELLS, weights=increase)
    counts = np.random.default_rng(0).poisson(1.0, (DRAWS, len(sums)))
    return float((counts @ sums > 0).mean())


def merge_evaluations(evaluation: Evaluation, further: Mapping[str, Mapping[str, float]]) -> Evaluation:
    """The metrics of both."""
    return {task: {**metrics, **further.get(task, {})} for task, metrics in evaluation.items()}
