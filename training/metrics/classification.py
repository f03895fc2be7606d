"""Metrics of class probabilities p (N, classes), given the numbers of the classes y (N,)."""

import numpy as np
from sklearn.metrics import f1_score

from contract.arrays import Array
from training.metrics.guard import require_finite


@require_finite
def accuracy(y: Array, p: Array) -> float:
    return float(np.mean(p.argmax(1) == y))


@require_finite
def macro_f1(y: Array, p: Array) -> float:
    """The mean F1 of the classes that occur as a label or as a prediction."""
    return float(f1_score(y, p.argmax(1), average="macro"))
