"""Multi-task loss balancing: how the losses of several tasks become one step, by the name of a TorchJD method.

    static         the sum of losses by their priorities (the default)
    uncertainty    learned uncertainties weigh the losses          Kendall et al. 2018     torchjd.scalarization.UW
    dwa            the slower a loss falls, the more it weighs     Liu et al. 2019         torchjd.scalarization.DWA
    pcgrad         conflicting gradients are projected             Yu et al. 2020          torchjd.aggregation.PCGrad
    upgrad         projected so that no task is made worse         Quinton and Rey 2024    torchjd.aggregation.UPGrad

Any other method goes by its class name with its options, as `DWA(temperature=1.0)`; where a scalarizer and an
aggregator share a name, the scalarizer is meant. Scalarizers combine losses. Aggregators combine the tasks' gradients
of the shared parameters, those that more than one task depends on; the other parameters follow their own task's
gradient. Priorities scale each loss before it is combined. `prioritize_tasks` may change them after each epoch.
"""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
import torchjd.aggregation
import torchjd.scalarization
from torch import Tensor
from torch.nn import Module
from torchjd import Stateful
from torchjd.aggregation import Aggregator
from torchjd.scalarization import Scalarizer

from contract.errors import BadConfig
from contract.tasks import Task
from training.trainer.shared_parameters import SharedParameters

ALIASES: Final = {"static": "Sum", "uncertainty": "UW", "dwa": "DWA", "pcgrad": "PCGrad", "upgrad": "UPGrad"}
TASK_COUNT_OPTIONS: Final = ("shape", "n_tasks")  # how TorchJD's classes ask for the number of tasks


class LossBalancer:
    """Backpropagates balanced losses. A task without labels in a batch counts with its last loss, without gradient."""

    def __init__(self, *, name: str, tasks: Sequence[str], parameters: SharedParameters, learning_rate: float) -> None:
        self._tasks, self._parameters = tuple(tasks), parameters
        self._method, self._needs_all_tasks = create_method(name, len(tasks))
        move_to_device(self._method, parameters.device)
        self._last_losses = torch.ones(len(tasks))
        own = [parameter for parameter in self._method.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(own, lr=learning_rate) if own and not self._needs_losses_after else None

    @property
    def _needs_losses_after(self) -> bool:
        """Whether the method needs the losses after the step; such a method, as FAMO, steps its own parameters."""
        return hasattr(self._method, "update")

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Set `.grad` of every parameter to the direction of this step; `losses`: scalars of some of the tasks."""
        if isinstance(self._method, Scalarizer):
            total = self._method(self._to_vector(losses))
            if total.requires_grad:
                torch.autograd.backward(total)
        else:
            self._aggregate(losses)

    def after_step(self, losses_after: Callable[[], Mapping[str, Tensor]]) -> None:
        """Called after the network's step; `losses_after` computes the batch's losses again, if the method needs it."""
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()
        if self._needs_losses_after:
            with torch.no_grad():
                self._method.update(self._to_vector(losses_after()))  # type: ignore[operator]

    def end_epoch(self) -> None:
        if hasattr(self._method, "step"):
            self._method.step()  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        """The state between steps: tensors, numbers, lists. Raises `BadConfig` for a method with any other state."""
        return {
            "method": self._method.state_dict(),
            "beside": {path: extra_state(module) for path, module in self._method.named_modules()},
            "last": self._last_losses,
            "optimizer": self._optimizer.state_dict() if self._optimizer else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the state of a balancer of the same name."""
        self._method.load_state_dict(state["method"])
        for path, module in self._method.named_modules():
            vars(module).update(state["beside"][path])
        self._last_losses = state["last"]
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])

    def _to_vector(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses of all tasks (tasks,), the last one where a task has none."""
        first_loss = next(iter(losses.values()))
        self._last_losses = self._last_losses.to(first_loss.device)
        values = torch.stack([losses.get(task, self._last_losses[index]) for index, task in enumerate(self._tasks)])
        self._last_losses = values.detach().clone()
        return values

    def _aggregate(self, losses: Mapping[str, Tensor]) -> None:
        """Combine the gradients of the shared parameters; the other parameters keep their task's gradient."""
        rows = dict[str, Tensor]()
        for task, loss in losses.items():
            rows[task], own = self._parameters.compute_gradients(loss)
            for parameter, gradient in zip(self._parameters.own, own, strict=True):
                if gradient is not None:
                    parameter.grad = gradient
        shared = self._parameters.shared
        vector = self._combine(rows)
        for parameter, part in zip(shared, torch.split(vector, [p.numel() for p in shared]), strict=True):
            parameter.grad = part.reshape(parameter.shape)

    def _combine(self, rows: Mapping[str, Tensor]) -> Tensor:
        """One vector (parameters,) from the tasks' gradients; a single task's gradient is returned unchanged."""
        zeros = torch.zeros_like(next(iter(rows.values())))
        matrix = torch.stack([rows.get(task, zeros) for task in (self._tasks if self._needs_all_tasks else rows)])
        combined: Tensor = self._method(matrix) if len(rows) > 1 and self._parameters.shared else matrix.sum(0)
        return combined


def move_to_device(method: Module, device: torch.device) -> None:
    """Move a method to the device, including tensors given as options, which are not among its buffers."""
    method.to(device)
    for module in method.modules():
        vars(module).update(
            {name: value.to(device) for name, value in vars(module).items() if isinstance(value, Tensor)}
        )


def extra_state(module: Module) -> dict[str, Any]:
    """The state of a `Stateful` method outside its parameters and buffers, as DWA has; raises `BadConfig`."""
    if not isinstance(module, Stateful):
        return {}
    state = {name: value for name, value in vars(module).items() if name not in vars(Module())}
    for name, value in state.items():
        if not all(
            item is None or isinstance(item, Tensor | float | str) or type(item) in (int, bool)
            for item in as_list(value)
        ):
            kind = type(module).__name__
            raise BadConfig(
                [f"`balance` should hold plain numbers where training state is saved. Found {name} of {kind}."]
            )
    return state


def as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def create_method(name: str, tasks: int) -> tuple[Scalarizer | Aggregator, bool]:
    """The scalarizer or aggregator of that name, and whether it needs every task; raises `BadConfig`."""
    class_name, options = parse_method(name)
    class_name = ALIASES.get(class_name, class_name)
    kind = getattr(torchjd.scalarization, class_name, None) or getattr(torchjd.aggregation, class_name, None)
    if not (inspect.isclass(kind) and issubclass(kind, Scalarizer | Aggregator)) or inspect.isabstract(kind):
        raise BadConfig([f"`balance` should be one of {list_method_names()}. Found {name!r}."])
    parameters = inspect.signature(kind).parameters
    arguments = {key: tasks for key in TASK_COUNT_OPTIONS if key in parameters} | options
    needs_all_tasks = any(key in TASK_COUNT_OPTIONS or isinstance(value, Tensor) for key, value in arguments.items())
    try:
        return kind(**arguments), needs_all_tasks
    except (TypeError, ValueError, ImportError) as error:
        raise BadConfig([f"`balance` should have the options of {class_name} and no others. Found: {error}"]) from error


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `NAME` or `NAME(option=value, ...)`; lists become tensors."""
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        if isinstance(expression, ast.Name):
            return expression.id, {}
        if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and not expression.args:
            values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in expression.keywords}
            return expression.func.id, {k: torch.tensor(v) if isinstance(v, list) else v for k, v in values.items()}
    except (SyntaxError, ValueError):
        pass
    raise BadConfig(
        [f"`balance` should be a name, or a name with options such as DWA(temperature=1.0). Found {text!r}."]
    )


def list_method_names() -> list[str]:
    """The aliases, then TorchJD's own names."""
    own = [*torchjd.scalarization.__all__, *torchjd.aggregation.__all__]
    usable = [name for name in own if not name.endswith("Weighting") and name not in ("Aggregator", "Scalarizer")]
    return [*ALIASES, *dict.fromkeys(name for name in usable if not name.endswith("WeightedAggregator"))]


def prioritize_tasks(
    tasks: Sequence[Task], evaluation: Mapping[str, Mapping[str, float]], focus: float
) -> dict[str, float]:
    """The weight of each task's loss in the next epoch: dynamic task prioritization (after Guo et al. 2018).

    A priority is multiplied by (1 - gain) ** focus, where the gain is the share of the best constant's loss that the
    task saves on held-out rows. Weights are rescaled to the sum of the priorities, which keeps the length of a step. A
    task without a gain keeps its priority; so do all with focus 0.
    """
    gains = {name: metrics["gain"] for name, metrics in evaluation.items() if metrics.get("gain") is not None}
    factors = {task.name: (1 - min(max(gains[task.name], 0.0), 1.0)) ** focus for task in tasks if task.name in gains}
    declared = {task.name: task.weight for task in tasks}
    before = sum(declared[name] for name in factors)
    after = sum(declared[name] * factor for name, factor in factors.items())
    if not after:
        return declared
    return {
        name: weight * factors[name] * before / after if name in factors else weight
        for name, weight in declared.items()
    }
