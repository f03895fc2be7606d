"""Scores that models served, with the labels that followed: the feedback topic without its features."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from contract.arrays import Floats, Integers
from contract.tasks import Task
from training.data.labels import is_valid_label
from training.feedback.decoding import decode_or_none

KEEP_RATE_MIN: Final = 1e-6  # bounds the weight of one row


class ServedScore(Struct, frozen=True, gc=False, kw_only=True):
    """A `contract.messages.Example` decoded without its features."""

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
    """The newest revision of each example of the feedback topic; unreadable records are counted and skipped."""

    def __init__(self) -> None:
        self._newest: dict[str, ServedScore] = {}
        self.unreadable = 0

    def add(self, value: bytes) -> None:
        if (score := decode_or_none(DECODE, value)) is None:
            self.unreadable += 1
            return
        previous = self._newest.get(score.example_id)
        if previous is None or previous.revision <= score.revision:
            self._newest[score.example_id] = score

    def rows(self, before_ms: float = float("inf")) -> list[ServedScore]:
        """The examples of events before that time, sorted by id."""
        return [score for _, score in sorted(self._newest.items()) if score.ts_ms < before_ms]


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """One model's scores of N labelled rows: labels, probabilities, weights and the number of each row's user.

    A weight is one over the probability that the joiner kept the row: it samples negatives.
    """

    y: Floats
    p: Floats
    weight: Floats
    user: Integers

    @property
    def users(self) -> int:
        return len(np.unique(self.user))


def collect_labelled_scores(task: Task, rows: Sequence[ServedScore], scores: Sequence[Any]) -> LabelledScores:
    """The rows that have a label of the task and a finite score; `scores`: a probability of each row, or None."""
    labelled = [(row, p) for row, p in zip(rows, scores, strict=True) if p is not None and np.isfinite(p)]
    labelled = [(row, p) for row, p in labelled if is_label(task, row.labels.get(task.name))]
    user_numbers: dict[str, int] = {}
    user = [user_numbers.setdefault(row.user_id, len(user_numbers)) for row, _ in labelled]
    y = np.array([row.labels[task.name] for row, _ in labelled], np.float64)
    keep_rate = np.array([min(max(row.negative_rate, KEEP_RATE_MIN), 1.0) for row, _ in labelled])
    return LabelledScores(
        y=y,
        p=np.array([p for _, p in labelled], np.float64),
        weight=np.where(y > 0, 1.0, 1 / keep_rate),
        user=np.array(user, np.int64),
    )


def is_label(task: Task, label: float | str | None) -> bool:
    return label is not None and is_valid_label(task, label)


def list_versions(rows: Iterable[ServedScore]) -> list[str]:
    """All model versions that scored a row, as the serving model or as a shadow."""
    return sorted({version for row in rows for version in (row.model_version, row.shadow_version) if version})
