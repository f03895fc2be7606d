"""How good a network is on examples: figures of each task by its kind, and one score of all tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from model.network import Network
from training.examples import Examples
from training.learner import predict
from training.metrics import (
    accuracy,
    auc,
    average_precision,
    calibration_error,
    log_loss,
    macro_f1,
    ndcg,
    root_mean_square,
)

Array: TypeAlias = npt.NDArray[Any]
Evaluation: TypeAlias = dict[str, dict[str, float]]  # task -> figure -> value; figures without meaning are left out


def evaluate(network: Network, examples: Examples) -> Evaluation:
    """The figures of every task that has labels here."""
    return judge(network.tasks, examples, predict(network, examples))


def judge(tasks: Sequence[Task], examples: Examples, predictions: Mapping[str, Array]) -> Evaluation:
    """The figures of predictions (N,) or (N, classes) that were made for these examples."""
    found: Evaluation = {}
    for task in tasks:
        rows = examples.known(task)
        if rows.any():
            y, p = examples.labels[task.name][rows], predictions[task.name][rows]
            figures = {"rows": float(rows.sum()), **figures_of(task, y, p, examples.event_id[rows])}
            found[task.name] = {name: value for name, value in figures.items() if np.isfinite(value)}
    return found


def figures_of(task: Task, y: Array, p: Array, query: Array) -> dict[str, float]:
    """The figures that belong to the task's kind; `gain` is the share of the best constant's loss that is saved."""
    if task.kind == "multiclass":
        shares = np.bincount(y, minlength=p.shape[1]) / len(y)
        loss, constant = log_loss(y, p), log_loss(y, np.tile(shares, (len(y), 1)))
        return {"accuracy": accuracy(y, p), "macro_f1": macro_f1(y, p), "log_loss": loss, "gain": gain(loss, constant)}
    if task.kind == "regression":
        error, constant = root_mean_square(y, p), float(y.std())
        return {"rmse": error, "gain": gain(error**2, constant**2)}
    loss, constant = log_loss(y, p), log_loss(y, np.full(len(y), y.mean()))
    figures = {"auc": auc(y, p), "log_loss": loss, "gain": gain(loss, constant), "ece": calibration_error(y, p)}
    if task.graph == "decide":
        figures["average_precision"] = average_precision(y, p)
    if task.kind == "graded":
        figures["ndcg_10"] = ndcg(y, p, query)
    return figures | {"mean_label": float(y.mean()), "mean_prediction": float(p.mean())}


def gain(loss: float, constant: float) -> float:
    return 1 - loss / constant if constant > 1e-6 else float("nan")


def weighted_score(tasks: Sequence[Task], evaluation: Evaluation) -> float:
    """The mean gain of the tasks that have one, weighted by their priorities; NaN if none has."""
    gains = [(task.weight, evaluation[task.name]["gain"]) for task in tasks if "gain" in evaluation.get(task.name, {})]
    total = sum(weight for weight, _ in gains)
    return sum(weight * value for weight, value in gains) / total if total else float("nan")
