"""Task affinity: which tasks pull what they share the same way while a network learns, and which against each other.

The cosine between two tasks' gradients of the parameters that both reach (Yu et al. 2020; Fifty et al. 2021): 1 where
one step helps both, 0 where neither minds the other, below 0 where what helps one harms the other. Taken of the batches
that teach, before their steps, every so many steps; kept by epoch, since tasks may agree early and part later.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from contract.settings import ModelConfig, TrainingConfig
from model.network import Network
from training.data.examples import Examples
from training.metrics.metrics import Array
from training.trainer.fit import Losses, build_network, train_epoch
from training.trainer.learner import Learner
from training.trainer.partition import prepare_data
from training.trainer.shared_parameters import SharedParameters

STEPS_BETWEEN: Final = 10  # steps; each look costs another backward pass for each task

Matrix = list[list[float | None]]  # (tasks, tasks); None where two tasks share nothing, or were never in one batch


class TaskAffinity(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cosines by epoch and over all looks; why some tasks are not among them."""

    tasks: list[str]
    looks: int
    mean: Matrix
    epochs: list[Matrix]
    left_out: dict[str, str]

    def pairs(self) -> list[tuple[float, str, str]]:
        """Of each two tasks the mean, those in conflict first."""
        pairs = []
        for (a, task), (b, other) in combinations(enumerate(self.tasks), 2):
            if (value := self.mean[a][b]) is not None:
                pairs.append((value, task, other))
        return sorted(pairs)


class GradientCosines:
    """Looks at the gradients of a network's tasks; sums and counts of cosines by epoch, each (tasks, tasks)."""

    def __init__(self, network: Network, every: int = STEPS_BETWEEN) -> None:
        self.tasks = [task.name for task in network.tasks]
        self.batches = 0
        self.epochs: list[tuple[Array, Array]] = []
        self._shared, self._every, self._steps = SharedParameters(network).shared, every, 0

    def start_epoch(self) -> None:
        size = (len(self.tasks), len(self.tasks))
        self.epochs.append((np.zeros(size), np.zeros(size)))

    def __call__(self, losses: Mapping[str, Tensor]) -> None:
        """Called before each step with the losses of some of the tasks, scalars; their graphs stay."""
        self._steps += 1
        if (self._steps - 1) % self._every or not self._shared:
            return
        self.batches += 1
        values = compute_cosines([self._compute_gradients(loss) for loss in losses.values()])
        cells = np.ix_(*2 * [[self.tasks.index(task) for task in losses]])
        sums, counts = self.epochs[-1]
        sums[cells] += np.nan_to_num(values)
        counts[cells] += ~np.isnan(values)

    def mean_matrix(self, *epochs: tuple[Array, Array]) -> Matrix:
        """The means over some epochs."""
        sums, counts = (np.sum(part, 0) for part in zip(*epochs, strict=True))
        return [
            [float(total / count) if count else None for total, count in zip(*row, strict=True)]
            for row in zip(sums, counts, strict=True)
        ]

    def _compute_gradients(self, loss: Tensor) -> Sequence[Tensor | None]:
        gradients: Sequence[Tensor | None] = torch.autograd.grad(
            loss, self._shared, retain_graph=True, allow_unused=True
        )
        return gradients


def compute_cosines(gradients: Sequence[Sequence[Tensor | None]]) -> Array:
    """(tasks, tasks) of each task's gradients by parameter; NaN where two reach none together, or one of them rests."""
    matrix = np.full((len(gradients), len(gradients)), np.nan)
    for row, mine in enumerate(gradients):
        for column, other in enumerate(gradients):
            pairs = [(a, b) for a, b in zip(mine, other, strict=True) if a is not None and b is not None]
            if pairs:
                a, b = (
                    torch.cat([gradient.reshape(-1) for gradient in side]).double() for side in zip(*pairs, strict=True)
                )
                lengths = float(a.norm() * b.norm())
                matrix[row, column] = float(a @ b) / lengths if lengths > 0 else np.nan
    return matrix


def measure_affinity(
    examples: Examples,
    shape: ModelConfig,
    plan: TrainingConfig,
    report: Callable[[int, Losses], None],
    every: int = STEPS_BETWEEN,
) -> TaskAffinity:
    """Learn for all epochs of the plan, watching; raises `BadData`, `BadConfig`. Equal seeds give equal figures."""
    data = prepare_data(examples, plan)
    learner = Learner(network=build_network(data.statistics_sample, shape), plan=plan)
    learner.on_losses = cosines = GradientCosines(learner.network, every)
    rng = np.random.default_rng(plan.seed)
    for number in range(1, plan.epochs + 1):
        cosines.start_epoch()
        report(number, train_epoch(learner, data, plan, rng))
    return TaskAffinity(
        tasks=cosines.tasks,
        looks=cosines.batches,
        mean=cosines.mean_matrix(*cosines.epochs),
        epochs=[cosines.mean_matrix(epoch) for epoch in cosines.epochs],
        left_out=data.left_out,
    )
