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
from training.reach import Reach

NAMES: Final = {"static": "Sum", "uncertainty": "UW", "dwa": "DWA", "pcgrad": "PCGrad", "upgrad": "UPGrad"}
OF_TASKS: Final = ("shape", "n_tasks")  # how TorchJD's classes ask for the number of tasks


class Balance:
    """Sends losses backwards. A task without labels in a batch counts with its last loss, which has no gradient."""

    def __init__(self, *, name: str, tasks: Sequence[str], reach: Reach, learning_rate: float) -> None:
        self._tasks, self._reach = tuple(tasks), reach
        self._method, self._every_task = method_named(name, len(tasks))
        move(self._method, reach.device)
        self._last = torch.ones(len(tasks))
        own = [parameter for parameter in self._method.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(own, lr=learning_rate) if own and not self._looks_back else None

    @property
    def _looks_back(self) -> bool:
        """Whether it wants the losses again after the step, as FAMO does, which also steps its own parameters."""
        return hasattr(self._method, "update")

    def backward(self, losses: Mapping[str, Tensor]) -> None:
        """Leave in `.grad` of every parameter the direction of this step; losses of some of the tasks, scalars."""
        if isinstance(self._method, Scalarizer):
            total = self._method(self._whole(losses))
            if total.requires_grad:
                torch.autograd.backward(total)
        else:
            self._aggregate(losses)

    def stepped(self, losses_after: Callable[[], Mapping[str, Tensor]]) -> None:
        """Called after the network's step; `losses_after` gives the batch's losses anew, for the few that ask."""
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad()
        if self._looks_back:
            with torch.no_grad():
                self._method.update(self._whole(losses_after()))  # type: ignore[operator]

    def epoch_ended(self) -> None:
        if hasattr(self._method, "step"):
            self._method.step()  # type: ignore[operator]

    def memory(self) -> dict[str, Any]:
        """What it remembers between steps: tensors, numbers, lists. Raises `BadConfig` if it is more than that."""
        return {
            "method": self._method.state_dict(),
            "beside": {path: beside(module) for path, module in self._method.named_modules()},
            "last": self._last,
            "optimizer": self._optimizer.state_dict() if self._optimizer else {},
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on with what another of the same name remembered."""
        self._method.load_state_dict(memory["method"])
        for path, module in self._method.named_modules():
            vars(module).update(memory["beside"][path])
        self._last = memory["last"]
        if self._optimizer:
            self._optimizer.load_state_dict(memory["optimizer"])

    def _whole(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The losses of all tasks, (tasks,)."""
        some = next(iter(losses.values()))
        self._last = self._last.to(some.device)
        values = torch.stack([losses.get(task, self._last[at]) for at, task in enumerate(self._tasks)])
        self._last = values.detach().clone()
        return values

    def _aggregate(self, losses: Mapping[str, Tensor]) -> None:
        """The tasks' gradients of the shared parameters, combined; those of a task's own ones, as they are."""
        rows = dict[str, Tensor]()
        for task, loss in losses.items():
            rows[task], own = self._reach.gradients(loss)
            for parameter, gradient in zip(self._reach.own, own, strict=True):
                if gradient is not None:
                    parameter.grad = gradient
        shared = self._reach.shared
        vector = self._combined(rows)
        for parameter, part in zip(shared, torch.split(vector, [p.numel() for p in shared]), strict=True):
            parameter.grad = part.reshape(parameter.shape)

    def _combined(self, rows: Mapping[str, Tensor]) -> Tensor:
        """One vector (parameters,) of the tasks' gradients; a single task's goes as it is."""
        nothing = torch.zeros_like(next(iter(rows.values())))
        matrix = torch.stack([rows.get(task, nothing) for task in (self._tasks if self._every_task else rows)])
        combined: Tensor = self._method(matrix) if len(rows) > 1 and self._reach.shared else matrix.sum(0)
        return combined


def move(method: Module, device: torch.device) -> None:
    """Let a method work there, with the tensors that it was given as options too, which are no buffers of it."""
    method.to(device)
    for module in method.modules():
        vars(module).update({name: of.to(device) for name, of in vars(module).items() if isinstance(of, Tensor)})


def beside(module: Module) -> dict[str, Any]:
    """What a method that TorchJD calls stateful remembers beside its parameters and buffers, as DWA does."""
    if not isinstance(module, Stateful):
        return {}
    found = {name: value for name, value in vars(module).items() if name not in vars(Module())}
    for name, value in found.items():
        if not all(
            one is None or isinstance(one, Tensor | float | str) or type(one) in (int, bool) for one in flat(value)
        ):
            kind = type(module).__name__
            raise BadConfig(
                [f"`balance` should remember numbers alone where a course is kept. Found {name} of {kind}."]
            )
    return found


def flat(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def method_named(name: str, tasks: int) -> tuple[Scalarizer | Aggregator, bool]:
    """The scalarizer or aggregator of that name, and whether it asks for every task; raises `BadConfig`."""
    wanted, options = parsed(name)
    wanted = NAMES.get(wanted, wanted)
    kind = getattr(torchjd.scalarization, wanted, None) or getattr(torchjd.aggregation, wanted, None)
    if not (inspect.isclass(kind) and issubclass(kind, Scalarizer | Aggregator)) or inspect.isabstract(kind):
        raise BadConfig([f"`balance` should be one of {known_names()}. Found {name!r}."])
    asked = inspect.signature(kind).parameters
    given = {key: tasks for key in OF_TASKS if key in asked} | options
    every = any(key in OF_TASKS or isinstance(value, Tensor) for key, value in given.items())
    try:
        return kind(**given), every
    except (TypeError, ValueError, ImportError) as error:
        raise BadConfig([f"`balance` should say all that {wanted} asks for, and no more. Found: {error}"]) from error


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of `NAME` or `NAME(option=value, ...)`; lists are taken as tensors."""
    try:
        found = ast.parse(text.strip(), mode="eval").body
        if isinstance(found, ast.Name):
            return found.id, {}
        if isinstance(found, ast.Call) and isinstance(found.func, ast.Name) and not found.args:
            values = {str(word.arg): ast.literal_eval(word.value) for word in found.keywords}
            return found.func.id, {k: torch.tensor(v) if isinstance(v, list) else v for k, v in values.items()}
    except (SyntaxError, ValueError):
        pass
    raise BadConfig(
        [f"`balance` should be a name, or a name with options such as DWA(temperature=1.0). Found {text!r}."]
    )


def known_names() -> list[str]:
    """The names of this page, then TorchJD's own."""
    own = [*torchjd.scalarization.__all__, *torchjd.aggregation.__all__]
    usable = [name for name in own if not name.endswith("Weighting") and name not in ("Aggregator", "Scalarizer")]
    return [*NAMES, *dict.fromkeys(name for name in usable if not name.endswith("WeightedAggregator"))]
