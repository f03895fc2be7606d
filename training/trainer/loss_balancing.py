"""Balancing: how the losses of several tasks become one step, by a name that TorchJD knows.

    static         the sum of losses by their priorities (the default)
    uncertainty    learned uncertainties weigh the losses          Kendall et al. 2018     torchjd.scalarization.UW
    dwa            the slower a loss falls, the more it weighs     Liu et al. 2019         torchjd.scalarization.DWA
    pcgrad         conflicting gradients are projected             Yu et al. 2020          torchjd.aggregation.PCGrad
    upgrad         projected so that no task is made worse         Quinton and Rey 2024    torchjd.aggregation.UPGrad

Any other is passed through by its class's own name, with what it asks for: `DWA(temperature=1.0)`; of two with one name
it is the scalarizer. Scalarizers combine losses. Aggregators combine the tasks' gradients of the parameters that make
the shared representation: those that more than one task reaches, whatever the architecture. What a single task reaches
follows its own gradient. Priorities scale each loss before it is combined. Nothing that TorchJD has is written again.
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
from training.trainer.shared_parameters import SharedParameters

ALIASES: Final = {"static": "Sum", "uncertainty": "UW", "dwa": "DWA", "pcgrad": "PCGrad", "upgrad": "UPGrad"}
TASK_COUNT_OPTIONS: Final = ("shape", "n_tasks")  # how TorchJD's classes ask for the number of tasks


class LossBalancer:
    """Sends losses backwards. A task without labels in a batch counts with its last loss, which has no gradient."""

    def __init__(self, *, name: str, tasks: Sequence[str], parameters: SharedParameters, learning_rate: float) -> None:
        self._tasks, self._parameters = tuple(tasks), parameters
        self._method, self._needs_all_tasks = create_method(name, len(tasks))
        move_to_device(self._method, parameters.device)
        self._last_losses = torch.ones(len(tasks))
        own = [parameter for parameter in self._method.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(own, lr=learning_rate) if own and not self._needs_losses_after else None

    @property
    def _needs_losses_after(self) -> bool:
        """Whether it wants the losses again after the step, as FAMO does, which also steps its own parameters."""
        return hasattr(self._method, "update")

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Leave in `.grad` of every parameter the direction of this step; losses of some of the tasks, scalars."""
        if isinstance(self._method, Scalarizer):
            total = self._method(self._to_vector(losses))
            if total.requires_grad:
                torch.autograd.backward(total)
        else:
            self._aggregate(losses)

    def after_step(self, losses_after: Callable[[], Mapping[str, Tensor]]) -> None:
        """Called after the network's step; `losses_after` gives the batch's losses anew, for the few that ask."""
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
        """What it remembers between steps: tensors, numbers, lists. Raises `BadConfig` if it is more than that."""
        return {
            "method": self._method.state_dict(),
            "beside": {path: extra_state(module) for path, module in self._method.named_modules()},
            "last": self._last_losses,
            "optimizer": self._optimizer.state_dict() if self._optimizer else {},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another of the same name remembered."""
        self._method.load_state_dict(state["method"])
        for path, module in self._method.named_modules():
            vars(module).update(state["beside"][path])
        self._last_losses = state["last"]
        if self._optimizer:
            self._optimizer.load_state_dict(state["optimizer"])

    def _to_vector(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses of all tasks, (tasks,)."""
        first_loss = next(iter(losses.values()))
        self._last_losses = self._last_losses.to(first_loss.device)
        values = torch.stack([losses.get(task, self._last_losses[index]) for index, task in enumerate(self._tasks)])
        self._last_losses = values.detach().clone()
        return values

    def _aggregate(self, losses: Mapping[str, Tensor]) -> None:
        """The tasks' gradients of the shared parameters, combined; those of a task's own ones, as they are."""
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
        """One vector (parameters,) of the tasks' gradients; a single task's goes as it is."""
        zeros = torch.zeros_like(next(iter(rows.values())))
        matrix = torch.stack([rows.get(task, zeros) for task in (self._tasks if self._needs_all_tasks else rows)])
        combined: Tensor = self._method(matrix) if len(rows) > 1 and self._parameters.shared else matrix.sum(0)
        return combined


def move_to_device(method: Module, device: torch.device) -> None:
    """Let a method work there, with the tensors that it was given as options too, which are no buffers of it."""
    method.to(device)
    for module in method.modules():
        vars(module).update(
            {name: value.to(device) for name, value in vars(module).items() if isinstance(value, Tensor)}
        )


def extra_state(module: Module) -> dict[str, Any]:
    """What a method that TorchJD calls stateful remembers beside its parameters and buffers, as DWA does."""
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
                [f"`balance` should remember numbers alone where a course is kept. Found {name} of {kind}."]
            )
    return state


def as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def create_method(name: str, tasks: int) -> tuple[Scalarizer | Aggregator, bool]:
    """The scalarizer or aggregator of that name, and whether it asks for every task; raises `BadConfig`."""
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
        raise BadConfig(
            [f"`balance` should say all that {class_name} asks for, and no more. Found: {error}"]
        ) from error


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `NAME` or `NAME(option=value, ...)`; lists are taken as tensors."""
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
    """The names of this page, then TorchJD's own."""
    own = [*torchjd.scalarization.__all__, *torchjd.aggregation.__all__]
    usable = [name for name in own if not name.endswith("Weighting") and name not in ("Aggregator", "Scalarizer")]
    return [*ALIASES, *dict.fromkeys(name for name in usable if not name.endswith("WeightedAggregator"))]
