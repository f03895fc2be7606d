"""Transfer learning: a network for further tasks starts from a trained one, with its layers frozen or slowed.

Every tensor with the same name and shape in both is carried over: embeddings, first layers, experts, and the towers and
calibration of the former tasks. Vocabularies, bounds and classes come along, because the carried rows and columns refer
to them. A former task without labels in the new examples stays in the network; with frozen layers the former tasks'
predictions stay equal to the bit.
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
from contract.settings.model import ModelConfig
from contract.tasks import Task
from model.checkpoint import Checkpoint
from model.feature_statistics import FeatureStatistics
from model.network import Network
from training.data.examples import Examples
from training.data.labels import has_any_label
from training.data.streaming import ExampleStream

Carried = Literal["frozen", "slow", "free"]
RATE_SHARES: Final[dict[Carried, float]] = {"frozen": 0.0, "slow": 0.1, "free": 1.0}  # of the learning rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The checkpoint to start from, and how its layers are trained."""

    checkpoint: Checkpoint
    carried: Carried

    @property
    def name(self) -> str:
        """Distinguishes this start from others in a digest."""
        return f"{self.checkpoint.metadata.version} {self.carried}"

    @property
    def known_tasks(self) -> set[str]:
        return {task.name for task in self.checkpoint.metadata.tasks}

    def check(self, examples: Examples | ExampleStream, model_config: ModelConfig) -> None:
        """Raises `BadConfig` or `BadData` where the model, a task or the features differ from the checkpoint's."""
        metadata = self.checkpoint.metadata
        errors = []
        if model_config != metadata.shape:
            errors.append(f"[model] should be that of {metadata.version}: {metadata.shape}. Found {model_config}.")
        declared = {task.name: task for task in examples.tasks}
        for task in metadata.tasks:
            if task.name in declared and replace(declared[task.name], weight=task.weight) != task:
                errors.append(
                    f"`{task.name}` should be declared as in {metadata.version}. Found {declared[task.name]}."
                )
        if errors:
            raise BadConfig(errors)
        if examples.features.features != metadata.features:
            raise BadData(f"Examples should have the features of {metadata.version}. Found others.")

    def select_tasks(self, learnable: Sequence[Task], declared: Sequence[Task]) -> tuple[Task, ...]:
        """The learnable tasks and the checkpoint's tasks, in the order of declaration; raises `BadData`."""
        names = self.known_tasks | {task.name for task in learnable}
        if self.carried == "frozen" and names == self.known_tasks:
            raise BadData(f"Some task should be new, since {sorted(names)} are frozen. Found none with labels.")
        return tuple(task for task in declared if task.name in names)

    def drop_frozen_labels(self, examples: Examples) -> Examples:
        """The examples to train on: with frozen layers only those with labels of new tasks."""
        if self.carried != "frozen":
            return examples
        labels = {
            name: np.full_like(label, -1 if label.dtype == np.int64 else np.nan) if name in self.known_tasks else label
            for name, label in examples.labels.items()
        }
        return examples.with_labels(labels).take(has_any_label(labels, len(examples)))

    def merge_statistics(self, measured: FeatureStatistics) -> FeatureStatistics:
        """The statistics of the checkpoint, and the measured ones for features and tasks that it lacks."""
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
        """Copy every carried tensor into the network, and freeze it where layers are frozen."""
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
        """The trainable parameters as optimizer groups with their learning rates."""
        parts: dict[float, list[Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                share = RATE_SHARES[self.carried] if self._is_carried(name, parameter) else 1.0
                parts.setdefault(share, []).append(parameter)
        return [{"params": parameters, "lr": learning_rate * share} for share, parameters in parts.items()]
