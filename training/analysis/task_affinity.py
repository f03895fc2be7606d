"""Task affinity: which tasks' gradients agree during training, and which conflict.

The cosine between two tasks' gradients of their shared parameters (Yu et al. 2020; Fifty et al. 2021): 1 where one step
helps both, 0 where the tasks are independent, below 0 where a step that helps one harms the other. Measured on training
batches every `STEPS_BETWEEN` steps, and averaged by epoch, because tasks may agree early and diverge later.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Final

import msgspec
import numpy as np
import torch
from torch import Tensor

from contract.arrays import Floats
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from model.network import Network
from training.data.examples import Examples
from training.trainer.fit import Losses, build_network, train_epoch
from training.trainer.learner import Learner
from training.trainer.partition import prepare_data
from training.trainer.shared_parameters import SharedParameters

STEPS_BETWEEN: Final = 10  # each measurement costs another backward pass for each task

Matrix = list[list[float | None]]  # (tasks, tasks); None where two tasks share nothing, or were never in one batch


class TaskAffinity(msgspec.Struct, frozen=True, kw_only=True):
    """Mean cosines by epoch and over all `looks` measured batches; `left_out`: why tasks are missing."""

    tasks: list[str]
    looks: int
    mean: Matrix
    epochs: list[Matrix]
    left_out: dict[str, str]

    def pairs(self) -> list[tuple[float, str, str]]:
        """The mean cosine of each pair of tasks, the most conflicting first."""
        pairs = []
        for (a, task), (b, other) in combinations(enumerate(self.tasks), 2):
            if (value := self.mean[a][b]) is not None:
                pairs.append((value, task, other))
        return sorted(pairs)


class GradientCosines:
    """Measures the gradients of a network's tasks; sums and counts of cosines by epoch, each (tasks, tasks)."""

    def __init__(self, network: Network, every: int = STEPS_BETWEEN) -> None:
        self.tasks = [task.name for task in network.tasks]
        self.batches = 0
        self.epochs: list[tuple[Floats, Floats]] = []
        self._shared, self._every, self._steps = SharedParameters(network).shared, every, 0

    def start_epoch(self) -> None:
        size = (len(self.tasks), len(self.tasks))
        self.epochs.append((np.zeros(size), np.zeros(size)))

    def __call__(self, losses: Mapping[str, Tensor]) -> None:
        """Called before each step with the scalar losses of some of the tasks; their graphs stay."""
        self._steps += 1
        if (self._steps - 1) % self._every or not self._shared:
            return
        self.batches += 1
        values = compute_cosines([self._compute_gradients(loss) for loss in losses.values()])
        cells = np.ix_(*2 * [[self.tasks.index(task) for task in losses]])
        sums, counts = self.epochs[-1]
        sums[cells] += np.nan_to_num(values)
        counts[cells] += ~np.isnan(values)

    def mean_matrix(self, *epochs: tuple[Floats, Floats]) -> Matrix:
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


def compute_cosines(gradients: Sequence[Sequence[Tensor | None]]) -> Floats:
    """Cosines (tasks, tasks) of the tasks' gradients by parameter; NaN if two share none, or for a zero gradient."""
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
    model_config: ModelConfig,
    config: TrainingConfig,
    report: Callable[[int, Losses], None],
    every: int = STEPS_BETWEEN,
) -> TaskAffinity:
    """Train for all epochs and measure; raises `BadData`, `BadConfig`. Equal seeds give equal cosines."""
    data = prepare_data(examples, config)
    learner = Learner(network=build_network(data.statistics_sample, model_config), config=config)
    learner.on_losses = cosines = GradientCosines(learner.network, every)
    rng = np.random.default_rng(config.seed)
    for number in range(1, config.epochs + 1):
        cosines.start_epoch()
        report(number, train_epoch(learner, data, config, rng))
    return TaskAffinity(
        tasks=cosines.tasks,
        looks=cosines.batches,
        mean=cosines.mean_matrix(*cosines.epochs),
        epochs=[cosines.mean_matrix(epoch) for epoch in cosines.epochs],
        left_out=data.left_out,
    )
