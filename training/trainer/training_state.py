"""Resumable training state: everything that the next epoch depends on, saved to a file after each epoch.

A resumed run reproduces the same weights bit for bit on the same CPU. The file holds only tensors, numbers and text;
reading it runs no code. It belongs to one network, configuration and set of examples, and is rejected for any other.
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from contract.bundle import replace_durably
from contract.errors import BadData
from contract.settings.model import ModelConfig
from contract.settings.section import encode_section
from contract.settings.training import TrainingConfig
from training.data.examples import Examples
from training.data.streaming import ExampleStream
from training.trainer.learner import Learner, copy_state

UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError, ValueError, AttributeError)


class BestWeights:
    """The weights with the best score so far. A NaN score never loses a comparison, so the latest weights stay."""

    def __init__(self) -> None:
        self.score = math.nan
        self.epochs_without_gain = 0
        self.weights: dict[str, Tensor] = {}
        self.optimizer: Mapping[str, Any] = {}

    def update(self, score: float, learner: Learner) -> None:
        if score <= self.score:
            self.epochs_without_gain += 1
            return
        self.score = score
        self.epochs_without_gain = 0
        self.weights = {name: value.detach().clone() for name, value in learner.network.state_dict().items()}
        self.optimizer = copy_state(learner.optimizer.state_dict())


class TrainingState:
    """The epochs done, the learner, the best weights so far, and the state of the random generators."""

    def __init__(self, *, learner: Learner, seed: int) -> None:
        self.learner, self.best = learner, BestWeights()
        self.epochs_done = 0
        self.rng = np.random.default_rng(seed)

    def save(self, path: Path, digest: str) -> None:
        """Replace the file atomically; raises `BadBundle` for a full disk, which leaves the former file."""
        content = io.BytesIO()
        torch.save({"digest": digest, **self._to_dict()}, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, content.getvalue())

    def restore(self, path: Path, digest: str) -> None:
        """Continue from the file; raises `BadData` for a file that cannot be read or has another digest."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            stored_digest = state["digest"]
            if stored_digest == digest:
                self._load(state)
        except UNREADABLE as error:
            raise BadData(f"{path} should be a training state. Found: {type(error).__name__}: {error}") from error
        if stored_digest != digest:
            raise BadData(
                f"{path} should be the training state of this configuration on these examples. Found another one; "
                f"delete the file to start from the beginning."
            )

    def _to_dict(self) -> dict[str, Any]:
        return {
            "done": self.epochs_done,
            "network": self.learner.network.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "balance": self.learner.balancer.state_dict(),
            "weights": self.learner.weights,
            "best": vars(self.best),
            "order": json.dumps(self.rng.bit_generator.state),
            "chance": torch.get_rng_state(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        self.epochs_done = state["done"]
        self.learner.network.load_state_dict(state["network"])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.balancer.load_state_dict(state["balance"])
        self.learner.weights = state["weights"]
        vars(self.best).update(state["best"])
        self.rng.bit_generator.state = json.loads(state["order"])
        torch.set_rng_state(state["chance"])


def compute_digest(
    examples: Examples | ExampleStream, model_config: ModelConfig, config: TrainingConfig, initial_name: str
) -> str:
    """The digest of everything that a training state depends on; `epochs` and `patience` may change.

    `initial_name`: the name of the `Transfer` that training started from, or "".
    """
    comparable = config.model_copy(update={"epochs": 1, "patience": 1})
    digest = hashlib.sha256(
        msgspec.json.encode(
            (model_config, comparable, examples.tasks, examples.features.digest, initial_name), enc_hook=encode_section
        )
    )
    for part in examples.iterate_bytes():
        digest.update(part)
    return digest.hexdigest()
