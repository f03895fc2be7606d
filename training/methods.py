"""Ways of answering the tasks that are compared: each learns from some examples and predicts others."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace as changed

from contract.errors import BadData
from contract.tasks import Task
from model.declared import Shape
from training.examples import Examples
from training.fit import Epoch, fit
from training.learner import LEAST_SHARE, predict
from training.plan import Plan
from training.trees import trees

Predictions: TypeAlias = dict[str, npt.NDArray[Any]]  # (N,) or (N, classes); of tasks that were not learnable: none
Method: TypeAlias = Callable[[Examples, Examples, int], Predictions]  # learning, judging, seed

OURS: Final = "ours"
SINGLE: Final = "single-task"
TREES: Final = "LightGBM"


def methods_of(shape: Shape, plan: Plan) -> Mapping[str, Method]:
    """The declared network, the same without anything shared, and trees, by the names that pages show."""
    return {OURS: together(shape, plan), SINGLE: alone(shape, plan), TREES: trees(plan)}


def together(shape: Shape, plan: Plan) -> Method:
    """One network of the declared shape for all tasks."""

    def answered(learning: Examples, judging: Examples, seed: int) -> Predictions:
        network = fit(learning, shape, changed(plan, seed=seed), quiet).network
        if not (rows := rows_of(judging, network.tasks)).any():
            return {}
        return spread(predict(network, judging.for_tasks(network.tasks)), rows)

    return answered


def alone(shape: Shape, plan: Plan) -> Method:
    """A network for each task, as wide as the declared one, that sees no other task's label."""
    single = changed(shape, architecture="single")

    def answered(learning: Examples, judging: Examples, seed: int) -> Predictions:
        found = Predictions()
        for task in learning.tasks:
            taught = only(learning, task)
            fair = as_many_steps(plan, int(taught.known(task).sum()), len(learning))
            try:
                found |= together(single, fair)(taught, only(judging, task), seed)
            except BadData:  # nothing to learn of this task here: it stays without an answer
                continue
        return found

    return answered


def as_many_steps(plan: Plan, rows: int, everything: int) -> Plan:
    """The plan that meets `rows` of a task as often, and as many a step, as the given one does among `everything`.

    Else a small task alone would learn in a handful of steps, and learning together would seem to gain what only more
    steps do.
    """
    share = max(rows / everything, 1 / LEAST_SHARE)
    rounds = max(1, round(share * everything / max(rows, 1)))
    return changed(
        plan,
        batch=max(1, round(plan.batch * share)),
        epochs=plan.epochs * rounds,
        patience=plan.patience * rounds,
    )


def only(examples: Examples, task: Task) -> Examples:
    """The examples with one task that stands by itself; rows stay, so that predictions keep their places."""
    by_itself = changed(task, through=None, alone=(), experts=None)
    return replace(
        examples,
        tasks=(by_itself,),
        labels={task.name: examples.labels[task.name]},
        known_ms={task.name: examples.known_ms[task.name]},
        classes={name: of for name, of in examples.classes.items() if name == task.name},
    )


def rows_of(examples: Examples, tasks: tuple[Task, ...]) -> npt.NDArray[np.bool_]:
    """Which rows (N,) `for_tasks` keeps."""
    found: npt.NDArray[np.bool_] = np.any([examples.known(task) for task in tasks], axis=0)
    return found


def spread(predictions: Mapping[str, npt.NDArray[Any]], rows: npt.NDArray[np.bool_]) -> Predictions:
    """Predictions of some rows at their places among all, NaN elsewhere."""
    found = Predictions()
    for task, p in predictions.items():
        found[task] = np.full((len(rows), *p.shape[1:]), np.nan, p.dtype)
        found[task][rows] = p
    return found


def quiet(_: Epoch) -> None:
    """What an epoch has to say is not wanted here."""
