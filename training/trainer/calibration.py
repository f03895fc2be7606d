"""Post-hoc calibration: fits each task's calibrator to rows that were used neither for training nor for validation.

The objective is the loss of the calibrated predictions plus a weak prior for the identity, so a few rows change
little. A task that goes through another is fitted as the product of both probabilities, on every row that has its
label, after the other task; as a product it is never larger than the other's probability.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, xlogy
from torch import Tensor

from contract.arrays import Array, Floats
from contract.tasks import Task
from model.calibration import IDENTITY, SLOPE_MIN
from model.heads import sort_by_dependency
from model.network import Network, TaskView
from training.data.examples import Examples
from training.trainer.learner import collect_outputs

PRIOR_STRENGTH: Final = 4.0  # of the prior for the identity, in rows of evidence
PROBABILITY_MIN: Final = 1e-12  # probabilities are clipped to this distance from 0 and 1


def calibrate(network: Network, examples: Examples) -> None:
    """Fit the calibrators of every task that has labels here; the others stay unchanged."""
    logits, probabilities = compute_logits(network, examples), dict[str, Floats]()
    for task in sort_by_dependency(network.tasks):
        calibrator, rows = network.calibrator(task), examples.has_label(task)
        if rows.any() and calibrator.names:
            y, z = examples.labels[task.name][rows], logits[task.name][rows]
            before = probabilities[task.through][rows] if task.through else np.ones(len(y))
            calibrator.set_values(fit_calibrator(network, task, z, y, before))
        if task.kind == "binary" and task.name in logits:
            probabilities[task.name] = predict_probabilities(
                to_features(logits[task.name]), calibrator.values.cpu().numpy().astype(np.float64)
            )
            probabilities[task.name] *= probabilities[task.through] if task.through else 1.0


def fit_calibrator(network: Network, task: Task, logits: Floats, y: Array, before: Floats) -> list[float]:
    """The values that fit the labels (N,) of a task best; `before`: see `fit_beta`."""
    if task.kind == "multiclass":
        return fit_sharpness(logits, y)
    if task.kind == "regression":
        mean, deviation = network.scale[task.name]
        return fit_level(logits, (y.astype(np.float64) - mean) / deviation)
    return fit_beta(logits, y, before)


def fit_level(z: Floats, y: Floats) -> list[float]:
    """The (slope, offset) that fit standardised labels (N,) best; the mean prediction becomes the mean label.

    Least squares, with the slope drawn to 1 by the prior. The level is exact: a prior on it would bias every sum.
    """
    center, mean = float(z.mean()), float(y.mean())
    deviation = z - center
    shared, own = float(deviation @ (y - mean)), float(deviation @ deviation)
    slope = max((shared + PRIOR_STRENGTH) / (own + PRIOR_STRENGTH), SLOPE_MIN)
    return [slope, mean - slope * center]


def fit_beta(logits: Floats, y: Array, before: Floats) -> list[float]:
    """The (low, high, shift) that fit labels (N,) best; `before` (N,): the probability of the task it goes through.

    Beta calibration (Kull et al. 2017) of the product before * q.
    """
    x, start = to_features(logits), np.array([IDENTITY[name] for name in ("low", "high", "shift")])

    def loss(values: Floats) -> tuple[float, Floats]:
        q = predict_probabilities(x, values)
        p = (before * q).clip(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        falling = y * (1 - q) - (1 - y) * p * (1 - q) / (1 - p)  # minus the derivative of each row's loss
        total = -(xlogy(y, p) + xlogy(1 - y, 1 - p)).sum() + PRIOR_STRENGTH * np.square(values - start).sum()
        return float(total), -x.T @ falling + 2 * PRIOR_STRENGTH * (values - start)

    bounds = [(SLOPE_MIN, None), (SLOPE_MIN, None), (None, None)]
    return minimize_loss(loss, start, bounds)


def fit_sharpness(logits: Floats, y: Array) -> list[float]:
    """The factor of logits (N, classes) that fits the labels (N,) best: an inverse temperature (Guo et al. 2017)."""
    row, start = np.arange(len(y)), np.array([IDENTITY["sharpness"]])

    def loss(values: Floats) -> tuple[float, Floats]:
        logs = log_softmax(values[0] * logits, axis=1)
        expected = (np.exp(logs) * logits).sum(1)
        total = -logs[row, y].sum() + PRIOR_STRENGTH * np.square(values - start).sum()
        return float(total), (expected - logits[row, y]).sum(keepdims=True) + 2 * PRIOR_STRENGTH * (values - start)

    return minimize_loss(loss, start, [(SLOPE_MIN, None)])


def minimize_loss(loss: Any, start: Floats, bounds: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """The values of least loss, or the start where the optimizer returns values that are not finite."""
    values = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return list(values) if np.isfinite(values).all() else list(start)


def to_features(logits: Floats) -> Floats:
    """The columns that `Calibrator` weighs, (N, 3): log p, -log (1 - p), 1."""
    return np.stack([-np.logaddexp(0, -logits), np.logaddexp(0, logits), np.ones_like(logits)], 1)


def predict_probabilities(x: Floats, values: Floats) -> Floats:
    probabilities: Floats = expit(x @ values)
    return probabilities


def compute_logits(network: Network, examples: Examples) -> dict[str, Floats]:
    """Each task's logits before calibration: (N,) or (N, classes), 0 for rows of other views."""

    def answer(_: TaskView, logits: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return logits

    return collect_outputs(network, examples, answer, 0.0, np.float64)
