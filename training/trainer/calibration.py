"""Calibrating: after learning, each task's last layer is fitted to rows that neither taught the network nor judged it.

What is minimised is the log loss of the calibrated answers, with a weak pull towards leaving them as they are, so a few
rows change little. A task that goes through another is fitted as the product that it answers with, on every row that
has its label, after the task it goes through; being a product of two probabilities, it never says more than the other.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, xlogy

from model.calibration import IDENTITY, SLOPE_MIN
from model.heads import sort_by_dependency
from model.network import Network
from training.data.examples import Examples
from training.trainer.learner import PREDICT_ROWS, get_device, to_batch

Array: TypeAlias = npt.NDArray[np.float64]
PRIOR_STRENGTH: Final = 4.0  # towards the identity, as if so many rows' worth of evidence spoke for it
PROBABILITY_MIN: Final = 1e-12  # probabilities are taken as at least so far from 0 and 1


def calibrate(network: Network, examples: Examples) -> None:
    """Fit the calibrators of every task that has labels here; of the others they stay as they are."""
    logits, probabilities = compute_logits(network, examples), dict[str, Array]()
    for task in sort_by_dependency(network.tasks):
        calibrator, rows = network.calibrator(task), examples.has_label(task)
        if rows.any() and calibrator.names:
            y, z = examples.labels[task.name][rows], logits[task.name][rows]
            before = probabilities[task.through][rows] if task.through else np.ones(len(y))
            calibrator.set_values(fit_sharpness(z, y) if task.kind == "multiclass" else fit_beta(z, y, before))
        if task.kind == "binary" and task.name in logits:
            probabilities[task.name] = predict_probabilities(
                to_features(logits[task.name]), calibrator.values.cpu().numpy().astype(np.float64)
            )
            probabilities[task.name] *= probabilities[task.through] if task.through else 1.0


def fit_beta(logits: Array, y: npt.NDArray[Any], before: Array) -> list[float]:
    """(low, high, shift) that fit labels (N,) best, given what the tasks before it say (N,), 1 where there is none."""
    x, start = to_features(logits), np.array([IDENTITY[name] for name in ("low", "high", "shift")])

    def loss(values: Array) -> tuple[float, Array]:
        q = predict_probabilities(x, values)
        p = (before * q).clip(PROBABILITY_MIN, 1 - PROBABILITY_MIN)
        falling = y * (1 - q) - (1 - y) * p * (1 - q) / (1 - p)  # minus the slope of each row's loss
        total = -(xlogy(y, p) + xlogy(1 - y, 1 - p)).sum() + PRIOR_STRENGTH * np.square(values - start).sum()
        return float(total), -x.T @ falling + 2 * PRIOR_STRENGTH * (values - start)

    bounds = [(SLOPE_MIN, None), (SLOPE_MIN, None), (None, None)]
    return minimize_loss(loss, start, bounds)


def fit_sharpness(logits: Array, y: npt.NDArray[Any]) -> list[float]:
    """The one factor of logits (N, classes) that fits the labels (N,) best: the inverse of a temperature."""
    row, start = np.arange(len(y)), np.array([IDENTITY["sharpness"]])

    def loss(values: Array) -> tuple[float, Array]:
        logs = log_softmax(values[0] * logits, axis=1)
        expected = (np.exp(logs) * logits).sum(1)
        total = -logs[row, y].sum() + PRIOR_STRENGTH * np.square(values - start).sum()
        return float(total), (expected - logits[row, y]).sum(keepdims=True) + 2 * PRIOR_STRENGTH * (values - start)

    return minimize_loss(loss, start, [(SLOPE_MIN, None)])


def minimize_loss(loss: Any, start: Array, bounds: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """The values of least loss; where the search finds none that are finite, the start."""
    values = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return list(values) if np.isfinite(values).all() else list(start)


def to_features(logits: Array) -> Array:
    """What `Calibrator` weighs, (N, 3): log p, -log (1 - p), 1."""
    return np.stack([-np.logaddexp(0, -logits), np.logaddexp(0, logits), np.ones_like(logits)], 1)


def predict_probabilities(x: Array, values: Array) -> Array:
    probabilities: Array = expit(x @ values)
    return probabilities


@torch.no_grad()
def compute_logits(network: Network, examples: Examples) -> Mapping[str, Array]:
    """What the towers say before calibration: (N,) or (N, classes), 0 for rows without a label of the view."""
    logits, batch, device = dict[str, Array](), to_batch(examples), get_device(network)
    for view in network.views:
        rows = batch.labelled_rows(view)
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            inputs = batch.take(part, view.groups).to(device).inputs
            for task, logit in network.logits(view, network.group_parts(view, inputs)).items():
                empty = np.zeros((len(examples), *logit.shape[1:]))
                logits.setdefault(task, empty)[part.numpy()] = logit.cpu().numpy()
    return logits
