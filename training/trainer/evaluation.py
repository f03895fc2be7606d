"""Evaluates predictions on examples: metrics of each task by its kind, and one score of all tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from contract.arrays import Array, Integers, Mask
from contract.graphs import GRAPHS
from contract.tasks import Task
from contract.units import DAY_MS
from model.network import Network
from training.data.codes import factorize
from training.data.examples import Examples
from training.metrics.calibration import calibration_error, ratio_to_observed, to_top_class
from training.metrics.classification import accuracy, macro_f1
from training.metrics.fraud import CARDS_PER_DAY, card_precision, mask_known_cards
from training.metrics.losses import constant_loss, log_loss, root_mean_squared_error
from training.metrics.ranking import auc, auc_by_group, average_precision, ndcg, recall_at_fpr
from training.trainer.learner import predict

Evaluation: TypeAlias = dict[str, dict[str, float]]  # task -> metric -> value; undefined metrics are absent
RELEVANT_MIN: Final = 0.5  # a graded label above it is a positive for ranking metrics
CONSTANT_LOSS_MIN: Final = 1e-6  # below it a gain is undefined


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The labels of a task in N labelled rows, with the users, events and times of the rows; all (N,)."""

    y: Array
    user_id: Array
    event_id: Array
    ts_ms: Integers
    known_ms: Integers


def select_ground_truth(examples: Examples, task: Task, rows: Mask) -> GroundTruth:
    """The ground truth of those rows (N,), which all have the task's label."""
    return GroundTruth(
        y=examples.labels[task.name][rows],
        user_id=examples.user_id[rows],
        event_id=examples.event_id[rows],
        ts_ms=examples.ts_ms[rows],
        known_ms=examples.known_ms[task.name][rows],
    )


def evaluate(network: Network, examples: Examples) -> Evaluation:
    """The metrics of every task that has labels here."""
    return evaluate_predictions(network.tasks, examples, predict(network, examples))


def evaluate_predictions(tasks: Sequence[Task], examples: Examples, predictions: Mapping[str, Array]) -> Evaluation:
    """The metrics of predictions (N,) or (N, classes) for these examples."""
    evaluation: Evaluation = {}
    for task in tasks:
        rows = examples.has_label(task)
        if rows.any():
            truth, p = select_ground_truth(examples, task, rows), predictions[task.name][rows]
            metrics = {"rows": float(rows.sum()), **compute_metrics(task, truth, p)}
            evaluation[task.name] = {name: value for name, value in metrics.items() if np.isfinite(value)}
    return evaluation


def compute_metrics(task: Task, truth: GroundTruth, p: Array) -> dict[str, float]:
    """The metrics of the task's kind; `gain` is the share of the best constant's loss that the predictions save."""
    if task.kind == "multiclass":
        return compute_class_metrics(task, truth.y, p)
    if task.kind == "regression":
        error = root_mean_squared_error(truth.y, p)
        metrics = {"rmse": error, "gain": relative_gain(error**2, constant_loss(task, truth.y))}
        return metrics | compute_level(truth.y, p)
    return compute_probability_metrics(task, truth, p)


def compute_class_metrics(task: Task, y: Array, p: Array) -> dict[str, float]:
    loss = log_loss(y, p)
    return {
        "accuracy": accuracy(y, p),
        "macro_f1": macro_f1(y, p),
        "log_loss": loss,
        "gain": relative_gain(loss, constant_loss(task, y)),
        "ece": calibration_error(*to_top_class(y, p)),
    }


def compute_probability_metrics(task: Task, truth: GroundTruth, p: Array) -> dict[str, float]:
    """The metrics of a binary or graded task."""
    y, loss = truth.y, log_loss(truth.y, p)
    is_relevant = y > RELEVANT_MIN
    metrics = {
        "auc": auc(is_relevant, p),
        "log_loss": loss,
        "gain": relative_gain(loss, constant_loss(task, y)),
        "ece": calibration_error(y, p),
    }
    if GRAPHS[task.graph].is_rare_positive:
        metrics |= compute_rare_positive_metrics(truth, p)
    else:
        metrics["grouped_auc"] = auc_by_group(is_relevant, p, truth.user_id)
    if task.kind == "graded":
        metrics["ndcg_10"] = ndcg(y, p, truth.event_id)
    return metrics | compute_level(y, p)


def compute_level(y: Array, p: Array) -> dict[str, float]:
    """The observed and the predicted mean, and their ratio."""
    means = {"mean_label": float(np.mean(y, dtype=np.float64)), "mean_prediction": float(np.mean(p, dtype=np.float64))}
    return {"predicted_to_observed": ratio_to_observed(y, p), **means}


def compute_rare_positive_metrics(truth: GroundTruth, p: Array) -> dict[str, float]:
    """Metrics of the rows with the highest predictions."""
    is_positive = truth.y > RELEVANT_MIN
    return {
        "average_precision": average_precision(is_positive, p),
        "recall_fpr_1": recall_at_fpr(is_positive, p),
        "card_precision_100": user_precision(truth, p),
    }


def user_precision(truth: GroundTruth, p: Array) -> float:
    """Card precision with users in place of cards, which examples do not name.

    NaN without event times, which define the days, and where no day has more than a hundred users.
    """
    day = truth.ts_ms // DAY_MS
    new = ~mask_known_cards(truth.y, truth.user_id, day * DAY_MS, truth.known_ms)
    pairs = np.unique(np.stack([day[new], factorize(truth.user_id)[new]], 1), axis=0)
    if not truth.ts_ms.any() or not len(pairs) or np.unique(pairs[:, 0], return_counts=True)[1].max() <= CARDS_PER_DAY:
        return float("nan")
    return card_precision(truth.y[new], p[new], truth.user_id[new], day[new])


def relative_gain(loss: float, constant: float) -> float:
    return 1 - loss / constant if constant > CONSTANT_LOSS_MIN else float("nan")


def compute_weighted_score(tasks: Sequence[Task], evaluation: Evaluation) -> float:
    """The mean gain weighted by the tasks' priorities, over the tasks that have one; NaN without any."""
    gains = [(task.weight, evaluation[task.name]["gain"]) for task in tasks if "gain" in evaluation.get(task.name, {})]
    total = sum(weight for weight, _ in gains)
    return sum(weight * value for weight, value in gains) / total if total else float("nan")
