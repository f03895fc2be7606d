"""A step marker that runs callbacks when chosen steps of the pipeline begin: the place where tests inject faults."""

from collections.abc import Callable
from dataclasses import dataclass

from worker.ops.steps import StepMarker

Callback = Callable[[], object]


@dataclass(slots=True, eq=False)
class PendingHook:
    """A callback for the `remaining`-th beginning of a step from now on."""

    step: str
    callback: Callback
    remaining: int


class StepHooks(StepMarker):
    """Marks steps, and runs each added callback once; another thread may add callbacks while steps are marked."""

    def __init__(self) -> None:
        super().__init__()
        self._pending: list[PendingHook] = []

    def add(self, step: str, callback: Callback, occurrence: int = 1) -> None:
        """Run `callback` when `step` begins for the `occurrence`-th time from now on."""
        self._pending.append(PendingHook(step, callback, occurrence))

    @property
    def is_pending(self) -> bool:
        """Whether a callback has not run yet."""
        return bool(self._pending)

    def __call__(self, step: str) -> None:
        super().__call__(step)
        due = list[PendingHook]()
        for hook in [hook for hook in self._pending if hook.step == step]:
            hook.remaining -= 1
            if not hook.remaining:
                self._pending.remove(hook)
                due.append(hook)
        for hook in due:
            hook.callback()
