"""The loss of each prediction and of the best constant: log loss, or the squared error of regression tasks.

Labels y (N,), predictions p (N,) or class probabilities (N, classes), weights (N,).
"""

from typing import Final

import numpy as np
from scipy.special import entr

from contract.arrays import Array, Floats
from contract.tasks import Task
from training.metrics.guard import require_finite, to_weights

PROBABILITY_MIN: Final = 1e-7
LOSS_MAX: Final = float(-np.log(PROBABILITY_MIN))  # the loss of a prediction that is not finite


def row_losses(task: Task, y: Array, p: Array) -> Floats:
    """The loss of each row (N,); a prediction that is not finite loses `LOSS_MAX`."""
    loss = np.square(y - p, dtype=np.float64) if task.kind == "regression" else row_log_losses(y, p)
    finite = np.isfinite(p) if p.ndim == 1 else np.isfinite(p).all(1)
    return np.where(finite, loss, LOSS_MAX)


def row_log_losses(y: Array, p: Array) -> Floats:
    """-log of the probability given to the label, for each row (N,); probabilities are clipped to stay finite."""
    p = np.clip(p.astype(np.float64), PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    if p.ndim == 2:
        p = p[np.arange(len(y)), y.astype(np.int64)]
        y = np.ones(len(y))
    losses: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return losses


@require_finite
def log_loss(y: Array, p: Array, weights: Array | None = None) -> float:
    return float(np.average(row_log_losses(y, p), weights=to_weights(weights, len(y))))


def constant_loss(task: Task, y: Array, weights: Array | None = None) -> float:
    """The mean loss of the best constant prediction: the entropy of the labels, or their variance."""
    w = to_weights(weights, len(y))
    if task.kind == "multiclass":
        shares = np.bincount(y, weights=w) / w.sum()
        return float(entr(shares).sum())
    mean = float(np.average(y, weights=w))
    if task.kind == "regression":
        return float(np.average(np.square(y - mean, dtype=np.float64), weights=w))
    rate = min(max(mean, 0.0), 1.0)  # rounding may leave it
    return float(entr(rate) + entr(1 - rate))


@require_finite
def root_mean_squared_error(y: Array, p: Array, weights: Array | None = None) -> float:
    squares = np.square(y - p, dtype=np.float64)
    return float(np.sqrt(np.average(squares, weights=to_weights(weights, len(y)))))
