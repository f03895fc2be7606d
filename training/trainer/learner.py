"""The losses of a batch, one optimizer step, and predictions: what full training and incremental updates share."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from contract.arrays import Array
from contract.errors import BadData
from contract.settings.training import TrainingConfig
from model.heads import compute_losses, compute_soft_losses
from model.network import Network, TaskView
from training.data.examples import Examples
from training.trainer.batching import Batch, label_mask, to_batch
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup
from training.trainer.loss_balancing import LossBalancer
from training.trainer.shared_parameters import SharedParameters

GRADIENT_NORM_MAX: Final = 5.0  # longer gradients are clipped: one outlier batch must not undo the others
PREDICT_ROWS: Final = 8_192

ParameterGroups = list[dict[str, Any]]


def get_device(network: Network) -> torch.device:
    """Where the network's parameters are."""
    return next(network.parameters()).device


def compute_task_losses(
    network: Network, batch: Batch, precision: torch.dtype = torch.float32, distillation: float = 0.0
) -> dict[str, Tensor]:
    """The mean loss of each task over the rows that have its label; tasks without labels in the batch are absent.

    For rows with soft targets the mean distance from them is added, multiplied by `distillation`.
    """
    losses_by_task: dict[str, Tensor] = {}
    for view in network.views:
        rows = batch.find_labelled_rows(view)
        if len(rows):
            part = batch.take(rows, view.groups)
            for task, loss in compute_view_losses(network, view, part, precision, distillation):
                losses_by_task[task] = losses_by_task[task] + loss if task in losses_by_task else loss
    return {task.name: losses_by_task[task.name] for task in network.tasks if task.name in losses_by_task}


def compute_view_losses(
    network: Network, view: TaskView, part: Batch, precision: torch.dtype, distillation: float
) -> Iterator[tuple[str, Tensor]]:
    """The losses of the tasks of one view by their labels, then by their soft targets."""
    with torch.autocast(part.labels[view.tasks[0].name].device.type, precision, enabled=precision != torch.float32):
        logits = network.logits(view, network.group_parts(view, part.inputs))
    floats = {task: logit.float() for task, logit in logits.items()}
    placed = floats if part.place is None else network.add_position_bias(floats, part.place)
    for task, loss in compute_losses(view.tasks, placed, part.labels, network.scale, part.weights).items():
        if label_mask(part.labels[task]).any():
            yield task, loss
    if distillation and part.soft_targets:
        for task, loss in compute_soft_losses(view.tasks, floats, part.soft_targets, network.scale).items():
            yield task, distillation * loss


class Learner:
    """A network and its optimizer. A task's loss is weighted by its priority and balanced as the config says."""

    def __init__(
        self,
        *,
        network: Network,
        config: TrainingConfig,
        state: Mapping[str, Any] | None = None,
        groups: ParameterGroups | None = None,
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """`state`: of a former optimizer. `groups`: parameters with learning rates of their own."""
        self.network, self.process_group = network, process_group
        self.on_losses: Callable[[Mapping[str, Tensor]], None] | None = None  # called with each batch's losses
        self.optimizer = build_optimizer(groups or network.parameters(), config, state)
        self.weights = {task.name: task.weight for task in network.tasks}
        self.balancer = LossBalancer(
            name=config.balance,
            tasks=list(self.weights),
            parameters=SharedParameters(network, process_group),
            learning_rate=config.learning_rate,
        )
        self._precision: torch.dtype = getattr(torch, config.precision)
        self._distillation = config.distillation

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step on this process's part of a batch, together with all other processes.

        Returns each task's loss before the step; raises `BadData` if one is not finite.
        """
        self.network.train()
        batch = batch.to(self.process_group.device)
        losses_by_task = self._compute_losses(batch)
        if not losses_by_task:
            return {}
        values = {name: float(loss.detach()) for name, loss in losses_by_task.items()}
        check_finite(values)
        if self.on_losses:
            self.on_losses(losses_by_task)
        self.optimizer.zero_grad()
        self.balancer.backward(self._weigh_losses(losses_by_task))
        self.process_group.average_gradients(self.network.parameters())
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM_MAX)
        self.optimizer.step()
        self.balancer.after_step(lambda: self._weigh_losses(self._compute_losses(batch)))
        return values

    def _compute_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The mean losses over the batches of all processes."""
        local = compute_task_losses(self.network, batch, self._precision, self._distillation)
        rows = dict[str, int]()
        if self.process_group.size > 1:
            rows = {task: int(label_mask(batch.labels[task]).sum()) for task in local}
        return self.process_group.global_losses(local, rows, list(self.weights))

    def _weigh_losses(self, losses_by_task: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.weights[name] * loss for name, loss in losses_by_task.items()}


def build_optimizer(parameters: Any, config: TrainingConfig, state: Mapping[str, Any] | None) -> torch.optim.AdamW:
    """AdamW with the rate and decay of the config; `state` restores only the moments of a former optimizer."""
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True)
    if state:
        # Steps would change the tensors of the given state.
        optimizer.load_state_dict(add_new_parameters(copy_state(state), optimizer.state_dict()))
        for group in optimizer.param_groups:
            group |= {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    return optimizer


def add_new_parameters(former: dict[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a former optimizer with the parameters that its network did not have, which come last."""
    for former_group, group in zip(former["param_groups"], present["param_groups"], strict=False):
        former_group["params"] = [*former_group["params"], *group["params"][len(former_group["params"]) :]]
    return former


def check_finite(losses: Mapping[str, float]) -> None:
    for task, loss in losses.items():
        if not math.isfinite(loss):
            raise BadData(f"The loss of `{task}` should be finite; a lower learning_rate may help. Found {loss}.")


def copy_state(state: Any) -> Any:
    """A copy of an optimizer's state in main memory that later steps do not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copy_state(value) for key, value in state.items()}
    return [copy_state(value) for value in state] if isinstance(state, list) else state


def predict(network: Network, examples: Examples) -> dict[str, Array]:
    """Each task's predictions for sampled rows, float32 (N,) or (N, classes); NaN for rows of other views."""

    def answer(view: TaskView, logits: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return network.predict_view(view, logits, sampled=True)

    network.eval()
    return collect_outputs(network, examples, answer, np.nan, np.float32)


@torch.no_grad()
def collect_outputs(
    network: Network,
    examples: Examples,
    answer: Callable[[TaskView, Mapping[str, Tensor]], Mapping[str, Tensor]],
    fill: float,
    dtype: type[np.floating[Any]],
) -> dict[str, Array]:
    """What `answer` makes of each view's logits, by task, in chunks of rows.

    A view sees only the rows with a label of one of its tasks; other rows hold `fill`.
    """
    outputs, batch, device = dict[str, Array](), to_batch(examples), get_device(network)
    for view in network.views:
        rows = batch.find_labelled_rows(view)
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            inputs = batch.take(part, view.groups).to(device).inputs
            for task, values in answer(view, network.logits(view, network.group_parts(view, inputs))).items():
                empty = np.full((len(examples), *values.shape[1:]), fill, dtype)
                outputs.setdefault(task, empty)[part.numpy()] = values.cpu().numpy()
    return outputs
