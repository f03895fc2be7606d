"""Splits examples by time into training and held-out rows, and finds the tasks that can be learned."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contract.arrays import Integers, Mask
from contract.tasks import Task
from training.data.examples import Examples


class Split(NamedTuple):
    """Row numbers of each part, sorted by time."""

    training: Integers
    validation: Integers


def split_by_time(examples: Examples, held_out: float) -> Split:
    """Hold out the latest share of each family of examples."""
    is_held_out = select_latest(examples.ts_ms, assign_families(examples), held_out)
    return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))


def select_latest(ts_ms: Integers, family: Integers, share: float) -> Mask:
    """Which rows (N,) are the latest share of their family.

    Families are cut separately because their times differ: products are known before the first click, fraud only for
    old orders. A seeded shuffle breaks ties of time.
    """
    shuffle = np.random.default_rng(0).permutation(len(ts_ms))
    order = np.lexsort((shuffle, ts_ms, family))
    members, counts = family[order], np.bincount(family)
    position = np.arange(len(order)) - (np.cumsum(counts) - counts)[members]
    is_latest = np.zeros(len(ts_ms), np.bool_)
    is_latest[order] = position >= np.ceil(counts[members] * (1 - share))
    return is_latest


def assign_families(examples: Examples) -> Integers:
    """The family of each example (N,): the number of its first labelled task. Families are split and mixed as units."""
    return find_first_label([examples.has_label(task) for task in examples.tasks], len(examples))


def find_first_label(labelled_by_task: Sequence[Mask], rows: int) -> Integers:
    """The number of the first task with a label, for each row (N,); rows without labels have one beyond the last."""
    family = np.full(rows, len(labelled_by_task), np.int64)
    for number, labelled in reversed(list(enumerate(labelled_by_task))):
        family[labelled] = number
    return family


def find_learnable(examples: Examples) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that can be learned from these examples, and why the others cannot, as sentences."""
    labels = {task.name: examples.labels[task.name][examples.has_label(task)] for task in examples.tasks}
    return filter_learnable(
        examples.tasks, {name: set(np.unique(values)[:2].tolist()) for name, values in labels.items()}
    )


def filter_learnable(
    tasks: Sequence[Task], labels: Mapping[str, Collection[Any]]
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks with at least two distinct labels in `labels`, and why the others are left out."""
    learnable, left_out = list[Task](), dict[str, str]()
    for task in tasks:
        if not labels[task.name]:
            left_out[task.name] = f"`{task.name}` should have labels. Found none: it is left out of this model."
        elif len(labels[task.name]) == 1:
            left_out[task.name] = f"`{task.name}` should have different labels. Found only one: it is left out."
        else:
            learnable.append(task)
    for task in learnable.copy():
        if task.through in left_out:
            left_out[task.name] = f"`{task.name}` goes through `{task.through}`, so it is left out as well."
            learnable.remove(task)
    return tuple(learnable), left_out
