"""What makes an update gentle: a share of the learning rate, whatever rate the optimizer remembers."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from model.network import Network
from training.trainer.config import TrainingConfig
from training.trainer.learner import Learner


def create_update_learner(network: Network, state: Mapping[str, Any], plan: TrainingConfig) -> Learner:
    """What learns an update: at the update's own rate, whatever rate `state` remembers."""
    plan = replace(plan, learning_rate=plan.learning_rate * plan.update_rate)
    return Learner(network=network.train(), config=plan, state=state)
