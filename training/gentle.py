"""What makes an update gentle: a share of the learning rate, and old examples beside new ones in the same step.

A step of its own for a few new rows of a rare task would follow their chance; beside kept rows of the same task they
count for as many as they are. What is learned is what is answered, calibration included, or the layers beneath would
learn a second time what calibration has put right already.
"""

from collections.abc import Mapping
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor

from model.network import Network
from training.learner import Batch, Learner
from training.plan import Plan


def gentle_learner(network: Network, state: Mapping[str, Any], plan: Plan) -> Learner:
    """What learns an update: at the update's own rate, whatever rate `state` remembers."""
    plan = replace(plan, learning_rate=plan.learning_rate * plan.update_rate)
    learner = Learner(network=network.train(), plan=plan, state=state)
    learner.calibrated = True
    for group in learner.optimizer.param_groups:
        group["lr"] = plan.learning_rate
    return learner


def beside(new: Batch, kept: Batch) -> Batch:
    """The rows of both as one batch."""
    weighted = dict.fromkeys((*new.weights, *kept.weights))
    return Batch(
        {
            group: (joined(of, kept.inputs[group], 0), joined(of, kept.inputs[group], 1))
            for group, of in new.inputs.items()
        },
        {task: torch.cat([label, kept.labels[task]]) for task, label in new.labels.items()},
        {task: torch.cat([weights_of(new, task), weights_of(kept, task)]) for task in weighted},
    )


def joined(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], at: int) -> Tensor:
    return torch.cat([one[at], other[at]])


def weights_of(batch: Batch, task: str) -> Tensor:
    return batch.weights[task] if task in batch.weights else torch.ones(len(batch.labels[task]))
