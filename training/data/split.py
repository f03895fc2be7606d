"""What is learned from and what is held out: the latest examples judge what the earlier ones taught."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.tasks import Task
from training.data.examples import Examples, Integers


class Split(NamedTuple):
    """Numbers of rows, each part in the order of time."""

    training: Integers
    validation: Integers


def split_by_time(examples: Examples, held_out: float) -> Split:
    """Hold out the latest share of each family of examples."""
    is_held_out = select_latest(examples.ts_ms, assign_families(examples), held_out)
    return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))


def select_latest(ts_ms: Integers, family: Integers, share: float) -> npt.NDArray[np.bool_]:
    """Which rows (N,) are the latest share of their family.

    Each family has its own cut, since tasks have times of their own: products are known before the first click, and
    fraud is known of old orders alone. Of equal times a seeded shuffle decides.
    """
    shuffle = np.random.default_rng(0).permutation(len(ts_ms))
    order = np.lexsort((shuffle, ts_ms, family))
    members, counts = family[order], np.bincount(family)
    position = np.arange(len(order)) - (np.cumsum(counts) - counts)[members]
    is_latest = np.zeros(len(ts_ms), np.bool_)
    is_latest[order] = position >= np.ceil(counts[members] * (1 - share))
    return is_latest


def assign_families(examples: Examples) -> Integers:
    """The number of each example's first labelled task (N,): what happens alike, and so is split and mixed alike."""
    return find_first_label([examples.has_label(task) for task in examples.tasks], len(examples))


def find_first_label(labelled_by_task: Sequence[npt.NDArray[np.bool_]], rows: int) -> Integers:
    """Of each row the number of the first task whose label is known (N,); of rows without any, one beyond the last."""
    family = np.full(rows, len(labelled_by_task), np.int64)
    for number, labelled in reversed(list(enumerate(labelled_by_task))):
        family[labelled] = number
    return family


def find_learnable(examples: Examples) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that these examples can teach; of the others, why not, as sentences."""
    labels = {task.name: examples.labels[task.name][examples.has_label(task)] for task in examples.tasks}
    return filter_learnable(
        examples.tasks, {name: set(np.unique(values)[:2].tolist()) for name, values in labels.items()}
    )


def filter_learnable(
    tasks: Sequence[Task], labels: Mapping[str, Collection[Any]]
) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that have different labels, of which some distinct ones are given; of the others, why not."""
    tasks_left, left_out = list[Task](), dict[str, str]()
    for task in tasks:
        if not labels[task.name]:
            left_out[task.name] = f"`{task.name}` should have labels. Found none: it is left out of this model."
        elif len(labels[task.name]) == 1:
            left_out[task.name] = f"`{task.name}` should have different labels. Found one alone: it is left out."
        else:
            tasks_left.append(task)
    for task in tasks_left.copy():
        if task.through in left_out:
            left_out[task.name] = f"`{task.name}` goes through `{task.through}`, so it is left out as well."
            tasks_left.remove(task)
    return tuple(tasks_left), left_out
