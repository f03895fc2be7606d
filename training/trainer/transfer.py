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
from contract.settings import ModelConfig
from contract.tasks import Task
from model.checkpoint import Checkpoint
from model.feature_statistics import FeatureStatistics
from model.network import Network
from training.data.examples import Examples
from training.data.labels import has_any_label
from training.data.streaming import ExampleStream

Carried = Literal["frozen", "slow", "free"]
RATE_SHARES: Final = {"frozen": 0.0, "slow": 0.1, "free": 1.0}  # of the learning rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The trained network that another begins as, and what becomes of the layers that come from it."""

    checkpoint: Checkpoint
    carried: Carried

    @property
    def name(self) -> str:
        """What tells one beginning from another."""
        return f"{self.checkpoint.metadata.version} {self.carried}"

    @property
    def known_tasks(self) -> set[str]:
        return {task.name for task in self.checkpoint.metadata.tasks}

    def check(self, examples: Examples | ExampleStream, shape: ModelConfig) -> None:
        """Raises `BadConfig` or `BadData` where nothing could be carried over, or it would mean something else."""
        about = self.checkpoint.metadata
        errors = []
        if shape != about.shape:
            errors.append(f"[model] should be that of {about.version}: {about.shape}. Found {shape}.")
        declared = {task.name: task for task in examples.tasks}
        for task in about.tasks:
            if task.name in declared and replace(declared[task.name], weight=task.weight) != task:
                errors.append(
                    f"`{task.name}` should be the task that {about.version} knows. Found {declared[task.name]}."
                )
        if errors:
            raise BadConfig(errors)
        if examples.features.features != about.features:
            raise BadData(f"Examples should have the features of {about.version}. Found others.")

    def select_tasks(self, learnable: Sequence[Task], declared: Sequence[Task]) -> tuple[Task, ...]:
        """Those that can be learned, and those that are known already, in the order of those that are declared."""
        names = self.known_tasks | {task.name for task in learnable}
        if self.carried == "frozen" and names == self.known_tasks:
            raise BadData(f"Some task should be further to {sorted(names)}, which are frozen. Found none with labels.")
        return tuple(task for task in declared if task.name in names)

    def drop_frozen_labels(self, examples: Examples) -> Examples:
        """The examples that teach: where what is carried is frozen, those of further tasks alone."""
        if self.carried != "frozen":
            return examples
        labels = {
            name: np.full_like(label, -1 if label.dtype == np.int64 else np.nan) if name in self.known_tasks else label
            for name, label in examples.labels.items()
        }
        return examples.with_labels(labels).take(has_any_label(labels, len(examples)))

    def merge_statistics(self, measured: FeatureStatistics) -> FeatureStatistics:
        """What was counted for the former network, and for what is new what these examples say."""
        initial = self.checkpoint.metadata.statistics
        return FeatureStatistics(
            numbers=measured.numbers | initial.numbers,
            known=measured.known | initial.known,
            start=measured.start | initial.start,
            scale=measured.scale | initial.scale,
            classes=measured.classes | initial.classes,
        )

    @torch.no_grad()
    def copy_weights(self, network: Network) -> None:
        """Let the network begin as the former one, as far as both have the same."""
        for name, value in network.state_dict().items():
            if self._is_carried(name, value):
                value.copy_(self.checkpoint.weights[name])
        for name, parameter in network.named_parameters():
            if self._is_carried(name, parameter):
                parameter.requires_grad_(self.carried != "frozen")

    def _is_carried(self, name: str, value: Tensor) -> bool:
        initial = self.checkpoint.weights.get(name)
        return initial is not None and initial.shape == value.shape

    def parameter_groups(self, network: Network, learning_rate: float) -> list[dict[str, Any]]:
        """The parameters that learn, as an optimizer takes them, each with its rate."""
        parts: dict[float, list[Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                share = RATE_SHARES[self.carried] if self._is_carried(name, parameter) else 1.0
                parts.setdefault(share, []).append(parameter)
        return [{"params": parameters, "lr": learning_rate * share} for share, parameters in parts.items()]
