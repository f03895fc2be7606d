"""One step of learning, and predictions: what `fit` does many times over and `follow` does once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.errors import BadData
from contract.settings import TrainingConfig
from model.heads import compute_losses, compute_soft_losses
from model.network import Network, TaskView
from training.data.examples import Examples, Integers
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup
from training.trainer.loss_balancing import LossBalancer
from training.trainer.shared_parameters import SharedParameters

GRADIENT_NORM_MAX = 5.0  # the norm beyond which a step is shortened: one strange batch must not undo the others
PREDICT_ROWS = 8_192
FAMILY_SHARE_DIVISOR = 16  # a sixteenth

ParameterGroups = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """N examples as tensors: numbers (N, n) and ids (N, m) of each group, labels (N,) of each task.

    `weights` (N,), of some tasks: how much each row counts where it is not 1. `said` (N,) or (N, classes), of some
    tasks: what a teacher says of each row, NaN where it is not to be listened to.
    """

    inputs: Mapping[str, tuple[Tensor, Tensor]]
    labels: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    soft_targets: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            {group: (numbers.to(device), ids.to(device)) for group, (numbers, ids) in self.inputs.items()},
            {task: label.to(device) for task, label in self.labels.items()},
            {task: weight.to(device) for task, weight in self.weights.items()},
            {task: target.to(device) for task, target in self.soft_targets.items()},
        )

    def take(self, rows: Tensor, groups: Sequence[str]) -> "Batch":
        return Batch(
            {group: (self.inputs[group][0][rows], self.inputs[group][1][rows]) for group in groups},
            {task: label[rows] for task, label in self.labels.items()},
            {task: weight[rows] for task, weight in self.weights.items()},
            {task: target[rows] for task, target in self.soft_targets.items()},
        )

    def labelled_rows(self, view: TaskView) -> Tensor:
        """The numbers of the rows that have a label of some task of the view."""
        masks = [has_label(self.labels[task.name]) for task in view.tasks]
        return torch.stack(masks).any(0).nonzero()[:, 0]


def get_device(network: Network) -> torch.device:
    """Where the network is."""
    return next(network.parameters()).device


def has_label(labels: Tensor) -> Tensor:
    return labels.isnan().logical_not() if labels.is_floating_point() else labels >= 0


def to_batch(examples: Examples, rows: Integers | None = None) -> Batch:
    """Some of the examples as tensors, or all of them."""
    indices = np.arange(len(examples)) if rows is None else rows
    blocks = {group: block.take(indices) for group, block in examples.blocks.items()}
    return Batch(
        {group: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for group, block in blocks.items()},
        {task: torch.from_numpy(label[indices]) for task, label in examples.labels.items()},
    )


def compute_task_losses(
    network: Network, batch: Batch, precision: torch.dtype = torch.float32, distillation: float = 0.0
) -> dict[str, Tensor]:
    """The mean loss of each task over the rows that have its label; tasks without any in the batch are not named.

    Where a teacher has spoken, the mean distance from it is added, multiplied by `distillation`.
    """
    losses_by_task: dict[str, Tensor] = {}
    for view in network.views:
        rows = batch.labelled_rows(view)
        if len(rows):
            part = batch.take(rows, view.groups)
            with torch.autocast(rows.device.type, precision, enabled=precision != torch.float32):
                logits = network.logits(view, network.group_parts(view, part.inputs))
            floats = {task: by_task.float() for task, by_task in logits.items()}
            by_task = compute_losses(view.tasks, floats, part.labels, network.scale, part.weights)
            losses_by_task |= {task: loss for task, loss in by_task.items() if has_label(part.labels[task]).any()}
            if distillation and part.soft_targets:
                for task, loss in compute_soft_losses(view.tasks, floats, part.soft_targets, network.scale).items():
                    losses_by_task[task] = (
                        losses_by_task[task] + distillation * loss if task in losses_by_task else distillation * loss
                    )
    return {task.name: losses_by_task[task.name] for task in network.tasks if task.name in losses_by_task}


class Learner:
    """A network and its optimizer; the weight of each task's loss is its priority, balanced as the plan says."""

    def __init__(
        self,
        *,
        network: Network,
        plan: TrainingConfig,
        state: Mapping[str, Any] | None = None,
        groups: ParameterGroups | None = None,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`state`: what the optimizer remembers. `groups`: parameters with rates of their own, if not all are alike."""
        self.network, self.process_group = network, process_group
        self._precision, self._distillation = getattr(torch, plan.precision), plan.distillation
        self.on_losses: Callable[[Mapping[str, Tensor]], None] | None = None  # sees each batch's losses before the step
        self.optimizer = torch.optim.AdamW(
            groups or network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, foreach=True
        )
        if state:
            self.optimizer.load_state_dict(copy_state(state))  # or its steps would change the state that was given
            for group in self.optimizer.param_groups:  # as the plan says, not as a former one did
                group |= {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
        self.weights = {task.name: task.weight for task in network.tasks}
        self.balancer = LossBalancer(
            name=plan.balance,
            tasks=list(self.weights),
            parameters=SharedParameters(network, process_group),
            learning_rate=plan.learning_rate,
        )

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step down the balanced losses of this process's part of a batch, and of all others'.

        Returns each task's loss before it; raises `BadData` if one is not finite.
        """
        self.network.train()
        batch = batch.to(self.process_group.device)
        losses_by_task = self._compute_losses(batch)
        if not losses_by_task:
            return {}
        values = {name: float(loss.detach()) for name, loss in losses_by_task.items()}
        check_finite(values)
        if self.on_losses:
            self.on_losses(losses_by_task)
        self.optimizer.zero_grad()
        self.balancer.backward(self._weigh_losses(losses_by_task))
        self.process_group.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM_MAX)
        self.optimizer.step()
        self.balancer.after_step(lambda: self._weigh_losses(self._compute_losses(batch)))
        return values

    def _compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean losses over the batches of all processes."""
        local = compute_task_losses(self.network, batch, self._precision, self._distillation)
        rows = {task: int(has_label(batch.labels[task]).sum()) for task in local} if self.process_group.size > 1 else {}
        return self.process_group.global_losses(local, rows, list(self.weights))

    def _weigh_losses(self, losses_by_task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.weights[name] * loss for name, loss in losses_by_task.items()}


def check_finite(losses: Mapping[str, float]) -> None:
    for task, loss in losses.items():
        if not math.isfinite(loss):
            raise BadData(f"The loss of `{task}` should be finite; a lower learning_rate may help. Found {loss}.")


def copy_state(state: Any) -> Any:
    """A copy of an optimizer's state that later steps leave alone, in the machine's own memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_state(value) for key, value in state.items()}
    return [copy_state(value) for value in state] if isinstance(state, list) else state


def mixed_batches(family: Integers, batch: int, rng: np.random.Generator) -> Iterator[Integers]:
    """Numbers of rows in batches of about `batch`: each row of a large family once, those of a small one over and over.

    Each family has a stated least share of every batch, so that no task's gradient rests on a row or two.
    """
    steps = -(-len(family) // batch)
    parts = []
    for number in np.unique(family):
        rows = np.flatnonzero(family == number)
        count = max(len(rows), steps * batch // FAMILY_SHARE_DIVISOR)
        rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
        parts.append(np.array_split(np.concatenate(rounds)[:count], steps))
    for step in range(steps):
        yield np.concatenate([part[step] for part in parts])


def alternating_batches(family: Integers, batch: int, rng: np.random.Generator) -> Iterator[Integers]:
    """Numbers of rows in batches of one family each: each row once, of small families over and over as in `mixed`.

    Families take turns, each evenly over the whole, so none is learned first and then forgotten.
    """
    turns: list[tuple[float, int, Integers]] = []
    for number in np.unique(family):
        rows = np.flatnonzero(family == number)
        count = max(len(rows), len(family) // FAMILY_SHARE_DIVISOR)
        rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
        parts = np.array_split(np.concatenate(rounds)[:count], -(-count // batch))
        turns += [((index + 0.5) / len(parts), int(number), part) for index, part in enumerate(parts)]
    for _, _, part in sorted(turns, key=lambda turn: turn[:2]):
        yield part


@torch.no_grad()
def predict(network: Network, examples: Examples) -> dict[str, npt.NDArray[np.float32]]:
    """What each task says of rows as sampled: (N,) or (N, classes), NaN where no label of what it looks at is known."""
    network.eval()
    predictions, device = dict[str, npt.NDArray[np.float32]](), get_device(network)
    batch = to_batch(examples)
    for view in network.views:
        rows = batch.labelled_rows(view)
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            inputs = batch.take(part, view.groups).to(device).inputs
            answers = network.predict_view(view, network.logits(view, network.group_parts(view, inputs)), sampled=True)
            for task, answer in answers.items():
                empty = np.full((len(examples), *answer.shape[1:]), np.nan, np.float32)
                predictions.setdefault(task, empty)[part.numpy()] = answer.cpu().numpy()
    return predictions
