"""Examples as tensors, and the order in which training steps take them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from contract.arrays import Integers
from model.network import TaskView
from training.data.examples import Examples

FAMILY_SHARE_DIVISOR = 16  # each family has at least a sixteenth of a batch


@dataclass(frozen=True, slots=True)
class Batch:
    """N examples as tensors: numbers (N, n) and ids (N, m) of each group, labels (N,) of each task.

    `place` (N,): of an item on its list, from 0, or -1; None: of all rows unknown.
    `weights` (N,), for some tasks: the weight of each row's loss, 1 by default. `soft_targets` (N,) or (N, classes),
    for some tasks: the teacher's prediction for each row, NaN where it is not distilled.
    """

    inputs: Mapping[str, tuple[Tensor, Tensor]]
    labels: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    soft_targets: Mapping[str, Tensor] = field(default_factory=dict)
    place: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            {group: (numbers.to(device), ids.to(device)) for group, (numbers, ids) in self.inputs.items()},
            {task: label.to(device) for task, label in self.labels.items()},
            {task: weight.to(device) for task, weight in self.weights.items()},
            {task: target.to(device) for task, target in self.soft_targets.items()},
            self.place.to(device) if self.place is not None else None,
        )

    def take(self, rows: Tensor, groups: Sequence[str]) -> "Batch":
        return Batch(
            {group: (self.inputs[group][0][rows], self.inputs[group][1][rows]) for group in groups},
            {task: label[rows] for task, label in self.labels.items()},
            {task: weight[rows] for task, weight in self.weights.items()},
            {task: target[rows] for task, target in self.soft_targets.items()},
            self.place[rows] if self.place is not None else None,
        )

    def find_labelled_rows(self, view: TaskView) -> Tensor:
        """The numbers of the rows that have a label of some task of the view."""
        masks = [label_mask(self.labels[task.name]) for task in view.tasks]
        return torch.stack(masks).any(0).nonzero()[:, 0]


def label_mask(labels: Tensor) -> Tensor:
    """Which rows (N,) have a label; `training.data.labels.has_label` for tensors."""
    return labels.isnan().logical_not() if labels.is_floating_point() else labels >= 0


def to_batch(examples: Examples, rows: Integers | None = None) -> Batch:
    """Some of the examples as tensors, or all of them."""
    indices = np.arange(len(examples)) if rows is None else rows
    blocks = {group: block.take(indices) for group, block in examples.blocks.items()}
    return Batch(
        {group: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for group, block in blocks.items()},
        {task: torch.from_numpy(label[indices]) for task, label in examples.labels.items()},
        place=torch.from_numpy(examples.place[indices]),
    )


def mix_batches(family: Integers, batch: int, rng: np.random.Generator) -> Iterator[Integers]:
    """Row numbers in batches of about `batch` rows of all families.

    A large family passes once. A small one is repeated up to its least share of every batch, so that no task's
    gradient rests on a row or two.
    """
    steps = -(-len(family) // batch)
    parts = []
    for number in np.unique(family):
        rows = np.flatnonzero(family == number)
        repeated = repeat_shuffled(rows, max(len(rows), steps * batch // FAMILY_SHARE_DIVISOR), rng)
        parts.append(np.array_split(repeated, steps))
    for step in range(steps):
        yield np.concatenate([part[step] for part in parts])


def alternate_batches(family: Integers, batch: int, rng: np.random.Generator) -> Iterator[Integers]:
    """Row numbers in batches of one family each; small families are repeated as in `mixed_batches`.

    The batches of each family are spread evenly over the epoch, so that no family is learned first and then forgotten.
    """
    turns: list[tuple[float, int, Integers]] = []
    for number in np.unique(family):
        rows = np.flatnonzero(family == number)
        repeated = repeat_shuffled(rows, max(len(rows), len(family) // FAMILY_SHARE_DIVISOR), rng)
        parts = np.array_split(repeated, -(-len(repeated) // batch))
        turns += [((index + 0.5) / len(parts), int(number), part) for index, part in enumerate(parts)]
    for _, _, part in sorted(turns, key=lambda turn: turn[:2]):
        yield part


def repeat_shuffled(rows: Integers, count: int, rng: np.random.Generator) -> Integers:
    """`count` of the rows: all of them in a random order, as often as needed."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
    return np.concatenate(rounds)[:count]
