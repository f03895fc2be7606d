"""Transfer: a network for further tasks begins as a trained one, whose layers stay as they are, or follow slowly.

Whatever has the same name and size in both is carried over: embeddings, first layers, experts, and the towers and
calibration of the tasks that were there. Vocabularies, bounds and classes come along, since the carried rows and
columns mean these. A task that the new examples say nothing of stays in the network; where all that is carried is
frozen, the former tasks answer as before to the bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import Parameter

from contract.errors import BadConfig, BadData
from contract.tasks import Task
from model.checkpoint import Checkpoint
from model.declared import Shape
from model.network import Network
from model.statistics import Statistics
from training.examples import Examples
from training.labels import any_known
from training.stream import Stream

Carried = Literal["frozen", "slow", "free"]
SHARES: Final = {"frozen": 0.0, "slow": 0.1, "free": 1.0}  # of the learning rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The trained network that another begins as, and what becomes of the layers that come from it."""

    checkpoint: Checkpoint
    carried: Carried

    @property
    def name(self) -> str:
        """What tells one beginning from another."""
        return f"{self.checkpoint.about.version} {self.carried}"

    @property
    def known_tasks(self) -> set[str]:
        return {task.name for task in self.checkpoint.about.tasks}

    def check(self, examples: Examples | Stream, shape: Shape) -> None:
        """Raises `BadConfig` or `BadData` where nothing could be carried over, or it would mean something else."""
        about = self.checkpoint.about
        errors = []
        if shape != about.shape:
            errors.append(f"[model] should be that of {about.version}: {about.shape}. Found {shape}.")
        now = {task.name: task for task in examples.tasks}
        for task in about.tasks:
            if task.name in now and replace(now[task.name], weight=task.weight) != task:
                errors.append(f"`{task.name}` should be the task that {about.version} knows. Found {now[task.name]}.")
        if errors:
            raise BadConfig(errors)
        if examples.features.features != about.features:
            raise BadData(f"Examples should have the features of {about.version}. Found others.")

    def tasks(self, learnable: Sequence[Task], declared: Sequence[Task]) -> tuple[Task, ...]:
        """Those that can be learned, and those that are known already, in the order of those that are declared."""
        names = self.known_tasks | {task.name for task in learnable}
        if self.carried == "frozen" and names == self.known_tasks:
            raise BadData(f"Some task should be further to {sorted(names)}, which are frozen. Found none with labels.")
        return tuple(task for task in declared if task.name in names)

    def taught(self, examples: Examples) -> Examples:
        """The examples that teach: where what is carried is frozen, those of further tasks alone."""
        if self.carried != "frozen":
            return examples
        labels = {
            name: np.full_like(label, -1 if label.dtype == np.int64 else np.nan) if name in self.known_tasks else label
            for name, label in examples.labels.items()
        }
        return examples.labelled(labels).take(any_known(labels, len(examples)))

    def statistics(self, measured: Statistics) -> Statistics:
        """What was counted for the former network, and for what is new what these examples say."""
        before = self.checkpoint.about.statistics
        return Statistics(
            numbers=measured.numbers | before.numbers,
            known=measured.known | before.known,
            start=measured.start | before.start,
            scale=measured.scale | before.scale,
            classes=measured.classes | before.classes,
        )

    @torch.no_grad()
    def carry_over(self, network: Network) -> None:
        """Let the network begin as the former one, as far as both have the same."""
        for name, value in network.state_dict().items():
            if self._carries(name, value):
                value.copy_(self.checkpoint.weights[name])
        for name, parameter in network.named_parameters():
            if self._carries(name, parameter):
                parameter.requires_grad_(self.carried != "frozen")

    def _carries(self, name: str, value: Tensor) -> bool:
        before = self.checkpoint.weights.get(name)
        return before is not None and before.shape == value.shape

    def groups(self, network: Network, learning_rate: float) -> list[dict[str, Any]]:
        """The parameters that learn, as an optimizer takes them, each with its rate."""
        parts: dict[float, list[Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                share = SHARES[self.carried] if self._carries(name, parameter) else 1.0
                parts.setdefault(share, []).append(parameter)
        return [{"params": of, "lr": learning_rate * share} for share, of in parts.items()]
