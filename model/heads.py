"""Probabilities from logits, and losses from labels: two sides of the same formulas.

A task that goes through another is trained by the product of both, over every row that has its label, so that rows
without a click count as well (ESMM, Ma et al. 2018). Products are computed as logarithms in training.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from contract.tasks import Task

LabelScale = Mapping[str, tuple[float, float]]  # regression task -> mean and deviation of its labels


def compute_probabilities(tasks: Sequence[Task], logits: Mapping[str, Tensor], scale: LabelScale) -> dict[str, Tensor]:
    """Predictions from (calibrated) logits: P(1) (N,), P(class) (N, classes), or a value (N,)."""
    by_task: dict[str, Tensor] = {}
    for task in sort_by_dependency(tasks):
        logit = logits[task.name]
        if task.kind == "multiclass":
            by_task[task.name] = logit.softmax(1)
        elif task.kind == "regression":
            mean, deviation = scale[task.name]
            by_task[task.name] = mean + deviation * logit
        else:
            by_task[task.name] = logit.sigmoid() * by_task[task.through] if task.through else logit.sigmoid()
    return {task.name: by_task[task.name] for task in tasks}


def average_members(task: Task, logits: Tensor) -> Tensor:
    """The logits (N,) or (N, classes) of the mean of the members' probabilities, from their logits (N, k, ...)."""
    if task.kind == "regression":
        return logits.mean(1)
    if task.kind == "multiclass":
        return torch.logsumexp(logits.log_softmax(-1), 1)
    return torch.logsumexp(-F.softplus(-logits), 1) - torch.logsumexp(-F.softplus(logits), 1)


def sort_by_dependency(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each after the task that it goes through."""
    done, waiting = list[Task](), list(tasks)
    while waiting:
        ready = [task for task in waiting if task.through in (None, *(other.name for other in done))]
        done += ready
        waiting = [task for task in waiting if task not in ready]
    return done


def compute_losses(
    tasks: Sequence[Task],
    logits: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
    scale: LabelScale,
    weights: Mapping[str, Tensor] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """The mean loss of each task over the rows that have its label; exactly 0, with gradient 0, if none has.

    Labels are (N,): NaN where unknown; int64 for classes, -1 where unknown. Each of k members (N, k, ...) has a loss of
    its own, or they would become one. `weights` (N,) multiply the losses of some tasks' rows; the mean is still over
    rows, so that weights with mean 1 do not change the expected step.
    """
    by_name = {task.name: task for task in tasks}
    by_task = {}
    for task in tasks:
        label = labels[task.name]
        known = label >= 0 if task.kind == "multiclass" else ~label.isnan()
        rows = {name: logits[name][known] for name in dependency_chain(task, by_name)}
        loss = compute_row_losses(task, by_name, rows, label[known], scale)  # (n,), or (n, k)
        if task.name in weights:
            loss = loss * weights[task.name][known].reshape(-1, *(1,) * (loss.dim() - 1))
        by_task[task.name] = loss.sum() / max(loss.numel(), 1)
    return by_task


def compute_soft_losses(
    tasks: Sequence[Task], logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], scale: LabelScale
) -> dict[str, Tensor]:
    """The mean distillation loss of each task, over the rows that have `targets`, another network's predictions.

    Hinton et al. 2015, at temperature 1: cross entropy with its probabilities (N,) or (N, classes), squared error with
    its values; NaN where a row has no target, tasks without targets are left out.
    """
    by_name = {task.name: task for task in tasks}
    by_task: dict[str, Tensor] = {}
    for task in (task for task in tasks if task.name in targets):
        known = ~targets[task.name].reshape(len(targets[task.name]), -1).isnan().any(1)
        rows = {name: logits[name][known] for name in dependency_chain(task, by_name)}
        target = targets[task.name][known]
        if task.kind == "multiclass":
            log_probabilities = rows[task.name].log_softmax(-1)  # (n, classes), or (n, k, classes)
            target = target.reshape(len(target), *(1,) * (log_probabilities.dim() - 2), target.shape[-1])
            loss = -(target * log_probabilities).sum(-1)
        else:
            loss = compute_row_losses(task, by_name, rows, target, scale)
        by_task[task.name] = loss.sum() / max(loss.numel(), 1)
    return by_task


def compute_row_losses(
    task: Task, tasks: Mapping[str, Task], logits: Mapping[str, Tensor], label: Tensor, scale: LabelScale
) -> Tensor:
    """The loss of each labelled row (N,), or row and member (N, k), by the task's kind."""
    if task.kind == "multiclass":
        log_probabilities = logits[task.name].log_softmax(-1)  # (N, classes), or (N, k, classes)
        index = label.reshape(-1, *(1,) * (log_probabilities.dim() - 1)).expand(*log_probabilities.shape[:-1], 1)
        return -log_probabilities.gather(-1, index).squeeze(-1)
    label = label.reshape(-1, *(1,) * (logits[task.name].dim() - 1))
    if task.kind == "regression":
        mean, deviation = scale[task.name]
        return (logits[task.name] - (label - mean) / deviation).square()
    happens, fails = binary_log_probabilities(task, tasks, logits)
    return -(label * happens + (1 - label) * fails)


def binary_log_probabilities(
    task: Task, tasks: Mapping[str, Task], logits: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """log P and log (1 - P) of a task, including the tasks it goes through: 1 - PQ = (1 - P) + P (1 - Q)."""
    logit = logits[task.name]
    happens, fails = F.logsigmoid(logit), F.logsigmoid(-logit)
    if task.through is None:
        return happens, fails
    before, never = binary_log_probabilities(tasks[task.through], tasks, logits)
    return before + happens, torch.logaddexp(never, before + fails)


def dependency_chain(task: Task, tasks: Mapping[str, Task]) -> list[str]:
    """The task and all those that it goes through."""
    return [task.name, *(dependency_chain(tasks[task.through], tasks) if task.through else [])]
