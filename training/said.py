"""What models said when they served, beside what turned out to be true: the feedback topic without its features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.tasks import Task
from training.labels import expected_instead

Floats = npt.NDArray[np.float64]


class Said(Struct, frozen=True, gc=False, kw_only=True):
    """An example as `contract.rows.Example`, of which the features are passed over."""

    example_id: str
    revision: int
    user_id: str
    ts_ms: int
    model_version: str
    labels: dict[str, float | str]
    served: dict[str, float] = {}
    shadow_version: str = ""
    shadow: dict[str, float] = {}
    negative_rate: float = 1.0


READ: Final = msgspec.msgpack.Decoder(Said).decode


class Heard:
    """Examples as they come, of which the newest revision counts; what cannot be read is counted and passed over."""

    def __init__(self) -> None:
        self._newest: dict[str, Said] = {}
        self.unreadable = 0

    def add(self, value: bytes) -> None:
        try:
            said = READ(value)
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        if (found := self._newest.get(said.example_id)) is None or found.revision <= said.revision:
            self._newest[said.example_id] = said

    def rows(self, before_ms: float = float("inf")) -> list[Said]:
        """The examples of events before that time, in the order of ids."""
        return [said for _, said in sorted(self._newest.items()) if said.ts_ms < before_ms]


@dataclass(frozen=True, slots=True)
class Judged:
    """What one model said of N labelled rows: labels, probabilities, weights and the number of each row's user.

    A weight is one over the chance that the row had to be kept: the joiner leaves out negatives at random.
    """

    y: Floats
    p: Floats
    weight: Floats
    user: npt.NDArray[np.int64]

    @property
    def users(self) -> int:
        return len(np.unique(self.user))


def judged(task: Task, rows: Sequence[Said], said: Sequence[Any]) -> Judged:
    """The rows whose label of the task is known and of which `said` (a probability of each, or None) is finite."""
    kept = [(row, p) for row, p in zip(rows, said, strict=True) if p is not None and np.isfinite(p)]
    kept = [(row, p) for row, p in kept if is_label(task, row.labels.get(task.name))]
    numbers: dict[str, int] = {}
    user = [numbers.setdefault(row.user_id, len(numbers)) for row, _ in kept]
    y = np.array([row.labels[task.name] for row, _ in kept], np.float64)
    rate = np.array([min(max(row.negative_rate, 1e-6), 1.0) for row, _ in kept])
    return Judged(
        y, np.array([p for _, p in kept], np.float64), np.where(y > 0, 1.0, 1 / rate), np.array(user, np.int64)
    )


def is_label(task: Task, label: float | str | None) -> bool:
    return label is not None and expected_instead(task, label) is None


def versions_of(rows: Iterable[Said]) -> list[str]:
    """Every model that said anything, as served or beside."""
    return sorted({version for row in rows for version in (row.model_version, row.shadow_version) if version})
