"""What makes an update gentle: a share of the learning rate, whatever rate the optimizer remembers."""

from collections.abc import Mapping
from typing import Any

from contract.settings import TrainingConfig
from model.network import Network
from training.trainer.learner import Learner


def create_update_learner(network: Network, state: Mapping[str, Any], plan: TrainingConfig) -> Learner:
    """What learns an update: at the update's own rate, whatever rate `state` remembers."""
    plan = plan.model_copy(update={"learning_rate": plan.learning_rate * plan.update_rate})
    return Learner(network=network.train(), plan=plan, state=state)
