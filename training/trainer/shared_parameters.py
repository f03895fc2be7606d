"""Which parameters several tasks depend on, found by autograd.

No list of layers has to follow the architecture: how experts, gates and towers are connected decides.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from contract.tasks import Task
from model.heads import dependency_chain
from model.network import Network, TaskView
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup

BLANK_ROWS = 2


class SharedParameters:
    """The trainable parameters of a network. `shared`: more than one task depends on them. `own`: the others."""

    def __init__(self, network: Network, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
        self._process_group = process_group
        trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        was_training = network.training
        network.eval()  # dropout would advance the random state
        table = torch.tensor([depends_on(network, task, trainable) for task in network.tasks])  # (tasks, parameters)
        network.train(was_training)
        shared_mask = (table.sum(0) > 1).tolist()
        self.shared = [parameter for parameter, is_shared in zip(trainable, shared_mask, strict=True) if is_shared]
        self.own = [parameter for parameter, is_shared in zip(trainable, shared_mask, strict=True) if not is_shared]

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((parameter.device for parameter in (*self.shared, *self.own)), torch.device("cpu"))

    def compute_gradients(self, loss: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of the shared parameters, one vector averaged over processes, and those of the other parameters.

        The graph stays. A loss without rows in this process contributes zeros and has no gradients of its own.
        """
        parameters = [*self.shared, *self.own]
        gradients: Sequence[Tensor | None] = (
            torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            if loss.requires_grad
            else [None] * len(parameters)
        )
        pairs = zip(self.shared, gradients, strict=False)
        flat = torch.cat(
            [loss.new_zeros(0), *((torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs)]
        )
        return self._process_group.average(flat), list(gradients[len(self.shared) :])


def depends_on(network: Network, task: Task, parameters: Sequence[Tensor]) -> list[bool]:
    """For each parameter, whether the task's loss depends on it."""
    view = next(view for view in network.views if task in view.tasks)
    logits = network.logits(view, network.group_parts(view, make_blank_inputs(network, view)))
    names = dependency_chain(task, {other.name: other for other in network.tasks})
    total = torch.stack([logits[name].sum() for name in names]).sum()
    if not total.requires_grad:
        return [False] * len(parameters)  # all its parameters are frozen
    gradients = torch.autograd.grad(total, list(parameters), allow_unused=True)
    return [gradient is not None for gradient in gradients]


def make_blank_inputs(network: Network, view: TaskView) -> dict[str, tuple[Tensor, Tensor]]:
    """Rows without any value, on the network's device."""
    device = next(network.parameters()).device
    blocks = {group: network.features.empty_block(group, BLANK_ROWS) for group in view.groups}
    return {
        group: (
            torch.from_numpy(block.numbers).to(device),
            torch.from_numpy(np.ascontiguousarray(block.ids)).to(device),
        )
        for group, block in blocks.items()
    }
