"""What is learned from and what is held out: the latest examples judge what the earlier ones taught."""

from typing import NamedTuple

import numpy as np

from contract.tasks import Task
from training.examples import Examples, Integers


class Split(NamedTuple):
    """Numbers of rows, each part in the order of time."""

    training: Integers
    validation: Integers


def split_by_time(examples: Examples, held_out: float) -> Split:
    """Hold out the latest share of each family of examples.

    Each family has its own cut, since tasks have times of their own: products are known before the first click, and
    fraud is known of old orders alone. Of equal times the ids decide, by a seeded shuffle.
    """
    family = family_of(examples)
    shuffle = np.random.default_rng(0).permutation(len(examples))
    order = np.lexsort((shuffle, examples.ts_ms, family))
    members, counts = family[order], np.bincount(family, minlength=len(examples.tasks))
    place = np.arange(len(order)) - (np.cumsum(counts) - counts)[members]
    late = place >= np.ceil(counts[members] * (1 - held_out))
    return Split(np.sort(order[~late]), np.sort(order[late]))


def family_of(examples: Examples) -> Integers:
    """The number of each example's first labelled task (N,): what happens alike, and so is split and mixed alike."""
    family = np.full(len(examples), len(examples.tasks), np.int64)
    for number, task in reversed(list(enumerate(examples.tasks))):
        family[examples.known(task)] = number
    return family


def learnable(examples: Examples) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks that these examples can teach; of the others, why not, as sentences."""
    found, left_out = list[Task](), dict[str, str]()
    for task in examples.tasks:
        labels = examples.labels[task.name][examples.known(task)]
        if not len(labels):
            left_out[task.name] = f"`{task.name}` should have labels. Found none: it is left out of this model."
        elif (labels == labels[0]).all():
            left_out[task.name] = f"`{task.name}` should have different labels. Found one alone: it is left out."
        else:
            found.append(task)
    for task in found.copy():
        if task.through in left_out:
            left_out[task.name] = f"`{task.name}` goes through `{task.through}`, so it is left out as well."
            found.remove(task)
    return tuple(found), left_out
