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
from model.answers import losses, soft_losses
from model.network import Network, View
from training.balance import Balance
from training.examples import Examples, Integers
from training.fleet import ALONE, Fleet
from training.plan import Plan
from training.reach import Reach

GRADIENT_MAX = 5.0  # the norm beyond which a step is shortened: one strange batch must not undo the others
PREDICT_ROWS = 8_192
LEAST_SHARE = 16  # a sixteenth

Groups = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """N examples as tensors: numbers (N, n) and ids (N, m) of each group, labels (N,) of each task.

    `weights` (N,), of some tasks: how much each row counts where it is not 1. `said` (N,) or (N, classes), of some
    tasks: what a teacher says of each row, NaN where it is not to be listened to.
    """

    inputs: Mapping[str, tuple[Tensor, Tensor]]
    labels: Mapping[str, Tensor]
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    said: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            {group: (numbers.to(device), ids.to(device)) for group, (numbers, ids) in self.inputs.items()},
            {task: label.to(device) for task, label in self.labels.items()},
            {task: weight.to(device) for task, weight in self.weights.items()},
            {task: said.to(device) for task, said in self.said.items()},
        )

    def take(self, rows: Tensor, groups: Sequence[str]) -> "Batch":
        return Batch(
            {group: (self.inputs[group][0][rows], self.inputs[group][1][rows]) for group in groups},
            {task: label[rows] for task, label in self.labels.items()},
            {task: weight[rows] for task, weight in self.weights.items()},
            {task: said[rows] for task, said in self.said.items()},
        )

    def rows_of(self, view: View) -> Tensor:
        """The numbers of the rows that have a label of some task of the view."""
        found = [known(self.labels[task.name]) for task in view.tasks]
        return torch.stack(found).any(0).nonzero()[:, 0]


def device_of(network: Network) -> torch.device:
    """Where the network is."""
    return next(network.parameters()).device


def known(labels: Tensor) -> Tensor:
    return labels.isnan().logical_not() if labels.is_floating_point() else labels >= 0


def as_batch(examples: Examples, rows: Integers | None = None) -> Batch:
    """Some of the examples as tensors, or all of them."""
    at = np.arange(len(examples)) if rows is None else rows
    taken = {group: block.take(at) for group, block in examples.blocks.items()}
    return Batch(
        {group: (torch.from_numpy(block.numbers), torch.from_numpy(block.ids)) for group, block in taken.items()},
        {task: torch.from_numpy(label[at]) for task, label in examples.labels.items()},
    )


def task_losses(
    network: Network, batch: Batch, precision: torch.dtype = torch.float32, distillation: float = 0.0
) -> dict[str, Tensor]:
    """The mean loss of each task over the rows that have its label; tasks without any in the batch are not named.

    Where a teacher has spoken, the mean distance from it is added, multiplied by `distillation`.
    """
    found: dict[str, Tensor] = {}
    for view in network.views:
        rows = batch.rows_of(view)
        if len(rows):
            part = batch.take(rows, view.groups)
            with torch.autocast(rows.device.type, precision, enabled=precision != torch.float32):
                logits = network.logits(view, network.parts(view, part.inputs))
            floats = {task: of.float() for task, of in logits.items()}
            of = losses(view.tasks, floats, part.labels, network.scale, part.weights)
            found |= {task: loss for task, loss in of.items() if known(part.labels[task]).any()}
            if distillation and part.said:
                for task, loss in soft_losses(view.tasks, floats, part.said, network.scale).items():
                    found[task] = found[task] + distillation * loss if task in found else distillation * loss
    return {task.name: found[task.name] for task in network.tasks if task.name in found}


class Learner:
    """A network and its optimizer; the weight of each task's loss is its priority, balanced as the plan says."""

    def __init__(
        self,
        *,
        network: Network,
        plan: Plan,
        state: Mapping[str, Any] | None = None,
        groups: Groups | None = None,
        fleet: Fleet = ALONE,
    ) -> None:
        """`state`: what the optimizer remembers. `groups`: parameters with rates of their own, if not all are alike."""
        self.network, self.fleet = network, fleet
        self._precision, self._distillation = getattr(torch, plan.precision), plan.distillation
        self.watch: Callable[[Mapping[str, Tensor]], None] | None = None  # sees each batch's losses before the step
        self.optimizer = torch.optim.AdamW(
            groups or network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, foreach=True
        )
        if state:
            self.optimizer.load_state_dict(copied(state))  # or its steps would change the state that was given
            for group in self.optimizer.param_groups:  # as the plan says, not as a former one did
                group |= {"lr": plan.learning_rate, "weight_decay": plan.weight_decay}
        self.weights = {task.name: task.weight for task in network.tasks}
        self.balance = Balance(
            name=plan.balance,
            tasks=list(self.weights),
            reach=Reach(network, fleet),
            learning_rate=plan.learning_rate,
        )

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step down the balanced losses of this process's part of a batch, and of all others'.

        Returns each task's loss before it; raises `BadData` if one is not finite.
        """
        self.network.train()
        batch = batch.to(self.fleet.device)
        found = self._losses(batch)
        if not found:
            return {}
        values = {name: float(loss.detach()) for name, loss in found.items()}
        check_finite(values)
        if self.watch:
            self.watch(found)
        self.optimizer.zero_grad()
        self.balance.backward(self._weighted(found))
        self.fleet.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_MAX)
        self.optimizer.step()
        self.balance.stepped(lambda: self._weighted(self._losses(batch)))
        return values

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean losses over the batches of all processes."""
        mine = task_losses(self.network, batch, self._precision, self._distillation)
        rows = {task: int(known(batch.labels[task]).sum()) for task in mine} if self.fleet.size > 1 else {}
        return self.fleet.whole(mine, rows, list(self.weights))

    def _weighted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.weights[name] * loss for name, loss in found.items()}


def check_finite(losses: Mapping[str, float]) -> None:
    for task, loss in losses.items():
        if not math.isfinite(loss):
            raise BadData(f"The loss of `{task}` should be finite; a lower learning_rate may help. Found {loss}.")


def copied(state: Any) -> Any:
    """A copy of an optimizer's state that later steps leave alone, in the machine's own memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list) else state


def mixed(family: Integers, batch: int, order: np.random.Generator) -> Iterator[Integers]:
    """Numbers of rows in batches of about `batch`: each row of a large family once, those of a small one over and over.

    Each family has a stated least share of every batch, so that no task's gradient rests on a row or two.
    """
    steps = -(-len(family) // batch)
    parts = []
    for one in np.unique(family):
        rows = np.flatnonzero(family == one)
        wanted = max(len(rows), steps * batch // LEAST_SHARE)
        rounds = [order.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        parts.append(np.array_split(np.concatenate(rounds)[:wanted], steps))
    for step in range(steps):
        yield np.concatenate([part[step] for part in parts])


def in_turn(family: Integers, batch: int, order: np.random.Generator) -> Iterator[Integers]:
    """Numbers of rows in batches of one family each: each row once, of small families over and over as in `mixed`.

    Families take turns, each evenly over the whole, so none is learned first and then forgotten.
    """
    turns: list[tuple[float, int, Integers]] = []
    for one in np.unique(family):
        rows = np.flatnonzero(family == one)
        wanted = max(len(rows), len(family) // LEAST_SHARE)
        rounds = [order.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        parts = np.array_split(np.concatenate(rounds)[:wanted], -(-wanted // batch))
        turns += [((at + 0.5) / len(parts), int(one), part) for at, part in enumerate(parts)]
    for _, _, part in sorted(turns, key=lambda turn: turn[:2]):
        yield part


@torch.no_grad()
def predict(network: Network, examples: Examples) -> dict[str, npt.NDArray[np.float32]]:
    """What each task says of rows as sampled: (N,) or (N, classes), NaN where no label of what it looks at is known."""
    network.eval()
    found, at = dict[str, npt.NDArray[np.float32]](), device_of(network)
    batch = as_batch(examples)
    for view in network.views:
        rows = batch.rows_of(view)
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            inputs = batch.take(part, view.groups).to(at).inputs
            answers = network.answers(view, network.logits(view, network.parts(view, inputs)), sampled=True)
            for task, answer in answers.items():
                empty = np.full((len(examples), *answer.shape[1:]), np.nan, np.float32)
                found.setdefault(task, empty)[part.numpy()] = answer.cpu().numpy()
    return found
