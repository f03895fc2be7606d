"""News: what in newly arrived examples has not been learned yet, in the order in which it became known.

A click is told at once, and told again with the purchase an hour later. Learned twice, clicks would count double
against what was never clicked, the more so the more often a model is updated. So of a later revision only those labels
are news that no revision of an earlier update had. And a click is known half an hour before "no click" is. What is
learned as it comes is nothing but clicks of the last half hour, and nothing but their absence when everybody has gone;
so news wait until both could be known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.messages import Example
from model.checkpoint import CheckpointMetadata
from training.data.arrays import Integers
from training.data.examples import Examples
from training.data.labels import has_any_label, has_label
from training.data.parquet import read_examples, read_table, to_parquet
from training.data.split import assign_families, select_latest
from training.online.replay_buffer import concatenate_examples, merge_examples, read_schema
from training.trainer.evaluation import ALARM_GRAPHS

NEW_SINCE: Final = "told_ms"
LABEL_THRESHOLD: Final = 0.5  # of a label that happens or does not
DELAY_QUANTILE: Final = 0.99

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NewLabels:
    """N examples as they are now; what became known of one before `told_ms` (N,) was learned by an earlier update."""

    examples: Examples
    new_since_ms: Integers

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: Integers | npt.NDArray[np.bool_]) -> "NewLabels":
        return NewLabels(self.examples.take(rows), self.new_since_ms[rows])

    def pending(self, negative_delays: Mapping[str, int] = MappingProxyType({})) -> Examples:
        """The rows that have news, with the labels that are, in the order in which they were due."""
        labelled = self._drop_learned_labels()
        rows = np.flatnonzero(has_any_label(labelled.labels, len(self)))
        return labelled.take(rows[np.argsort(self.available_ms(negative_delays)[rows], kind="stable")])

    def _drop_learned_labels(self) -> Examples:
        """All rows, with those labels alone that are news."""
        examples = self.examples
        labels = {
            name: np.where(
                examples.known_ms[name] >= self.new_since_ms, label, -1 if label.dtype == np.int64 else np.nan
            )
            for name, label in examples.labels.items()
        }
        return examples.with_labels({name: label.astype(examples.labels[name].dtype) for name, label in labels.items()})

    def first_seen(self) -> Examples:
        """The examples of which no earlier update had any revision."""
        examples = self.examples
        was_learned = [examples.has_label(t) & (examples.known_ms[t.name] < self.new_since_ms) for t in examples.tasks]
        return examples.take(~np.logical_or.reduce(was_learned))

    def available_ms(self, negative_delays: Mapping[str, int]) -> Integers:
        """When both a yes and a no of all that is news of each row (N,) could be known; without news, its event's time.

        `waits`: of some tasks, how long after its event a no is told. See `waits_in`.
        """
        examples, available_ms = self.examples, self.examples.ts_ms
        for name, label in examples.labels.items():
            is_new = has_label(label) & (examples.known_ms[name] >= self.new_since_ms)
            settled_ms = np.maximum(examples.known_ms[name], examples.ts_ms + negative_delays.get(name, 0))
            available_ms = np.where(is_new, np.maximum(available_ms, settled_ms), available_ms)
        return available_ms

    def most_recent(self, share: float, negative_delays: Mapping[str, int]) -> Mask:
        """The rows (N,) that are the latest share of their family of news, by when they were due."""
        return (
            select_latest(self.available_ms(negative_delays), assign_families(self._drop_learned_labels()), share)
            if len(self)
            else np.zeros(0, np.bool_)
        )

    def to_parquet(self) -> bytes:
        """None: no bytes."""
        return to_parquet(self.examples, {NEW_SINCE: self.new_since_ms}) if len(self) else b""


def read_new_labels(content: bytes, about: CheckpointMetadata) -> NewLabels:
    """What `News.parquet` wrote."""
    examples, table = read_examples(content, *read_schema(about)), read_table(content)
    new_since_ms = dict(zip(table.column("example_id").to_pylist(), table.column(NEW_SINCE).to_pylist(), strict=True))
    return NewLabels(examples, np.array([new_since_ms[ident] for ident in examples.example_id.tolist()], np.int64))


def find_new_labels(rows: Sequence[Example], examples: Examples) -> NewLabels:
    """The newest revisions of these rows as news; the least revision among them tells what was not learned before."""
    earliest: dict[str, Example] = {}
    for row in rows:
        least = earliest.setdefault(row.example_id, row)
        if row.revision < least.revision:
            earliest[row.example_id] = row
    new_since_ms = [
        max((earliest[i].known_ms.get(t, 0) for t in earliest[i].labels), default=0)
        for i in examples.example_id.tolist()
    ]
    return NewLabels(examples, np.array(new_since_ms, np.int64))


def concatenate_pending(parts: Sequence[NewLabels], negative_delays: Mapping[str, int]) -> Examples:
    """What is to be learned of some news, one after another, an example of two of them twice."""
    return concatenate_examples([part.pending(negative_delays) for part in parts])


def merge_new_labels(parts: Sequence[NewLabels]) -> NewLabels:
    """News of several times as one: of an id the newest revision, with what any of them had not learned."""
    new_since_ms = dict[str, int]()
    for part in parts:
        for ident, ms in zip(part.examples.example_id.tolist(), part.new_since_ms.tolist(), strict=True):
            new_since_ms[ident] = min(new_since_ms.get(ident, ms), ms)
    examples = merge_examples([part.examples for part in parts])
    return NewLabels(examples, np.array([new_since_ms[ident] for ident in examples.example_id.tolist()], np.int64))


def estimate_negative_delays(parts: Sequence[Examples]) -> dict[str, int]:
    """How long after its event a no is told, of each task that happens or does not within a visit.

    Alarms are left out: fraud is told within days and its absence after weeks, which nobody can wait for.
    """
    delays = dict[str, int]()
    for task in parts[0].tasks:
        if task.kind in ("binary", "graded") and task.graph not in ALARM_GRAPHS:
            lags = [part.known_ms[task.name] - part.ts_ms for part in parts]
            negatives = [lag[part.labels[task.name] < LABEL_THRESHOLD] for lag, part in zip(lags, parts, strict=True)]
            if sum(map(len, negatives)):
                delays[task.name] = max(int(np.quantile(np.concatenate(negatives), DELAY_QUANTILE)), 0)
    return delays
