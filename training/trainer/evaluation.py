"""How good predictions are on examples: figures of each task by its kind, and one score of all tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from model.network import Network
from training.data.examples import Examples, Integers
from training.metrics.fraud import CARDS_PER_DAY, card_precision, mask_known_cards
from training.metrics.metrics import (
    accuracy,
    auc,
    average_precision,
    calibration_error,
    factorize,
    grouped_auc,
    log_loss,
    macro_f1,
    ndcg,
    predicted_to_observed,
    recall_at_fpr,
    root_mean_squared_error,
)
from training.trainer.learner import predict

Array: TypeAlias = npt.NDArray[Any]
Evaluation: TypeAlias = dict[str, dict[str, float]]  # task -> figure -> value; figures without meaning are left out
DAY_MS: Final = 86_400_000
ALARM_GRAPHS: Final = ("decide", "review")  # graphs whose tasks look for few bad ones among many


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What turned out to be true in N rows that have a task's label, and whose rows they are; all (N,)."""

    y: Array
    user_id: Array
    event_id: Array
    ts_ms: Integers
    known_ms: Integers


def select_ground_truth(examples: Examples, task: Task, rows: npt.NDArray[np.bool_]) -> GroundTruth:
    """The truth of those rows, which all have the task's label."""
    return GroundTruth(
        y=examples.labels[task.name][rows],
        user_id=examples.user_id[rows],
        event_id=examples.event_id[rows],
        ts_ms=examples.ts_ms[rows],
        known_ms=examples.known_ms[task.name][rows],
    )


def evaluate(network: Network, examples: Examples) -> Evaluation:
    """The figures of every task that has labels here."""
    return evaluate_predictions(network.tasks, examples, predict(network, examples))


def evaluate_predictions(tasks: Sequence[Task], examples: Examples, predictions: Mapping[str, Array]) -> Evaluation:
    """The figures of predictions (N,) or (N, classes) that were made for these examples."""
    evaluation: Evaluation = {}
    for task in tasks:
        rows = examples.has_label(task)
        if rows.any():
            truth, p = select_ground_truth(examples, task, rows), predictions[task.name][rows]
            figures = {"rows": float(rows.sum()), **compute_metrics(task, truth, p)}
            evaluation[task.name] = {name: value for name, value in figures.items() if np.isfinite(value)}
    return evaluation


def compute_metrics(task: Task, truth: GroundTruth, p: Array) -> dict[str, float]:
    """The figures that belong to the task's kind; `gain` is the share of the best constant's loss that is saved."""
    y = truth.y
    if task.kind == "multiclass":
        shares = np.bincount(y, minlength=p.shape[1]) / len(y)
        loss, constant = log_loss(y, p), log_loss(y, np.tile(shares, (len(y), 1)))
        figures = {"accuracy": accuracy(y, p), "macro_f1": macro_f1(y, p), "log_loss": loss}
        return figures | {"gain": relative_gain(loss, constant), "ece": calibration_error(*to_top_class(y, p))}
    if task.kind == "regression":
        error, constant = root_mean_squared_error(y, p), float(y.std())
        return {"rmse": error, "gain": relative_gain(error**2, constant**2)}
    loss, constant = log_loss(y, p), log_loss(y, np.full(len(y), y.mean()))
    figures = {
        "auc": auc(y, p),
        "log_loss": loss,
        "gain": relative_gain(loss, constant),
        "ece": calibration_error(y, p),
    }
    figures["predicted_to_observed"] = predicted_to_observed(y, p)
    if task.graph in ALARM_GRAPHS:
        figures |= compute_alarm_metrics(truth, p)
    else:
        figures["grouped_auc"] = grouped_auc(y, p, truth.user_id)
    if task.kind == "graded":
        figures["ndcg_10"] = ndcg(y, p, truth.event_id)
    return figures | {"mean_label": float(y.mean()), "mean_prediction": float(p.mean())}


def to_top_class(y: Array, p: Array) -> tuple[Array, Array]:
    """Of classes p (N, classes): whether the likeliest one was right, and its probability (Guo et al. 2017)."""
    return (p.argmax(1) == y).astype(np.float64), p.max(1)


def compute_alarm_metrics(truth: GroundTruth, p: Array) -> dict[str, float]:
    """Figures of the few rows that are looked at first."""
    return {
        "average_precision": average_precision(truth.y, p),
        "recall_fpr_1": recall_at_fpr(truth.y, p),
        "card_precision_100": user_precision(truth, p),
    }


def user_precision(truth: GroundTruth, p: Array) -> float:
    """Card precision with users in the place of cards, which examples do not name.

    NaN without time, since it is taken day by day, and where a hundred are all that a day has.
    """
    day = truth.ts_ms // DAY_MS
    new = ~mask_known_cards(truth.y, truth.user_id, day * DAY_MS, truth.known_ms)
    pairs = np.unique(np.stack([day[new], factorize(truth.user_id)[new]], 1), axis=0)
    if not truth.ts_ms.any() or not len(pairs) or np.unique(pairs[:, 0], return_counts=True)[1].max() <= CARDS_PER_DAY:
        return float("nan")
    return card_precision(truth.y[new], p[new], truth.user_id[new], day[new])


def relative_gain(loss: float, constant: float) -> float:
    return 1 - loss / constant if constant > 1e-6 else float("nan")


def weighted_score(tasks: Sequence[Task], evaluation: Evaluation) -> float:
    """The mean gain of the tasks that have one, weighted by their priorities; NaN if none has."""
    gains = [(task.weight, evaluation[task.name]["gain"]) for task in tasks if "gain" in evaluation.get(task.name, {})]
    total = sum(weight for weight, _ in gains)
    return sum(weight * value for weight, value in gains) / total if total else float("nan")
