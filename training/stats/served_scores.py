"""What models said when they served, beside what turned out to be true: the feedback topic without its features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.tasks import Task
from training.data.labels import find_label_error

Floats = npt.NDArray[np.float64]


class ServedScore(Struct, frozen=True, gc=False, kw_only=True):
    """An example as `contract.messages.Example`, of which the features are passed over."""

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


DECODE: Final = msgspec.msgpack.Decoder(ServedScore).decode


class ServedScoreStore:
    """Examples as they come, of which the newest revision counts; what cannot be read is counted and passed over."""

    def __init__(self) -> None:
        self._newest: dict[str, ServedScore] = {}
        self.unreadable = 0

    def add(self, value: bytes) -> None:
        try:
            score = DECODE(value)
        except msgspec.MsgspecError:
            self.unreadable += 1
            return
        if (previous := self._newest.get(score.example_id)) is None or previous.revision <= score.revision:
            self._newest[score.example_id] = score

    def rows(self, before_ms: float = float("inf")) -> list[ServedScore]:
        """The examples of events before that time, in the order of ids."""
        return [score for _, score in sorted(self._newest.items()) if score.ts_ms < before_ms]


@dataclass(frozen=True, slots=True)
class LabelledScores:
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


def collect_labelled_scores(task: Task, rows: Sequence[ServedScore], scores: Sequence[Any]) -> LabelledScores:
    """The rows whose label of the task is known and of which `said` (a probability of each, or None) is finite."""
    labelled = [(row, p) for row, p in zip(rows, scores, strict=True) if p is not None and np.isfinite(p)]
    labelled = [(row, p) for row, p in labelled if is_label(task, row.labels.get(task.name))]
    user_numbers: dict[str, int] = {}
    user = [user_numbers.setdefault(row.user_id, len(user_numbers)) for row, _ in labelled]
    y = np.array([row.labels[task.name] for row, _ in labelled], np.float64)
    keep_rate = np.array([min(max(row.negative_rate, 1e-6), 1.0) for row, _ in labelled])
    return LabelledScores(
        y, np.array([p for _, p in labelled], np.float64), np.where(y > 0, 1.0, 1 / keep_rate), np.array(user, np.int64)
    )


def is_label(task: Task, label: float | str | None) -> bool:
    return label is not None and find_label_error(task, label) is None


def list_versions(rows: Iterable[ServedScore]) -> list[str]:
    """Every model that said anything, as served or beside."""
    return sorted({version for row in rows for version in (row.model_version, row.shadow_version) if version})
