"""A course of learning: all that its next epoch rests on, which a file keeps so that learning may be cut short.

Gone on with from there, on the same processor, it comes to the same weights to the bit. The file holds tensors, numbers
and text alone; reading it runs no code. It is of one network, plan and set of examples, and is refused for any other.
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
from contract.settings import ModelConfig, TrainingConfig, encode_section
from training.data.examples import Examples
from training.data.streaming import ExampleStream
from training.trainer.learner import Learner, copy_state

UNREADABLE = (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, TypeError, ValueError, AttributeError)


class BestWeights:
    """The weights with the best score so far; a score without meaning is as good as any, so the last one stays."""

    def __init__(self) -> None:
        self.score = math.nan
        self.waited = 0
        self.weights: dict[str, Tensor] = {}
        self.optimizer: Mapping[str, Any] = {}

    def update(self, score: float, learner: Learner) -> None:
        if score <= self.score:
            self.waited += 1
            return
        self.score, self.waited = score, 0
        self.weights = {name: value.detach().clone() for name, value in learner.network.state_dict().items()}
        self.optimizer = copy_state(learner.optimizer.state_dict())


class TrainingState:
    """How far learning has come: epochs done, the learner, the best so far, and the draws that are still to come."""

    def __init__(self, *, learner: Learner, seed: int) -> None:
        self.learner, self.best, self.epochs_done = learner, BestWeights(), 0
        self.rng = np.random.default_rng(seed)

    def save(self, path: Path, digest: str) -> None:
        """Write it, all or nothing; raises `BadBundle` where the disk has no room, with the former file as it was."""
        state, content = {"digest": digest, **self._to_dict()}, io.BytesIO()
        torch.save(state, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(path, content.getvalue())

    def restore(self, path: Path, digest: str) -> None:
        """Go on from what was kept there; raises `BadData` for a file that is no course or one of something else."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            stored_digest = state["digest"]
            if stored_digest == digest:
                self._load(state)
        except UNREADABLE as error:
            raise BadData(f"{path} should be a course of learning. Found: {type(error).__name__}: {error}") from error
        if stored_digest != digest:
            raise BadData(
                f"{path} should be a course of this network and plan on these examples. Found one of others; without "
                f"the file, learning begins anew."
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
    examples: Examples | ExampleStream, shape: ModelConfig, plan: TrainingConfig, initial_name: str
) -> str:
    """Of all that a course is of; how many epochs it may have, and with how much patience, may change.

    `begun`: the name of what it began as.
    """
    comparable = plan.model_copy(update={"epochs": 1, "patience": 1})
    digest = hashlib.sha256(
        msgspec.json.encode(
            (shape, comparable, examples.tasks, examples.features.digest, initial_name), enc_hook=encode_section
        )
    )
    for part in examples.iterate_bytes():
        digest.update(part)
    return digest.hexdigest()
