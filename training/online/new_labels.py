"""New labels: what newly arrived examples add to the labels that earlier updates learned, ordered by availability.

The joiner publishes an example as soon as it is clicked, and again with its purchase an hour later. Learned from both
revisions, clicks would count double against impressions without a click, and more so the more often the model is
updated. So of a later revision only the labels are new that no revision of an earlier update had.

Positive labels arrive first: a click is known half an hour before "no click" is. An update that learned labels on
arrival would see mostly positives of the last half hour, and mostly negatives when traffic stops. So rows wait until
their negative label could be known too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from contract.arrays import Integers, Mask
from contract.graphs import GRAPHS
from contract.messages import Example
from model.checkpoint import CheckpointMetadata
from training.data.examples import Examples, concatenate_examples, merge_examples
from training.data.labels import has_any_label, has_label
from training.data.parquet import read_examples, read_table, to_parquet
from training.data.split import assign_families, select_latest

NEW_SINCE: Final = "told_ms"
LABEL_THRESHOLD: Final = 0.5  # between the negative and the positive label of a task
DELAY_QUANTILE: Final = 0.99


@dataclass(frozen=True, slots=True)
class NewLabels:
    """N examples; a label that was known before `new_since_ms` (N,) has been learned by an earlier update."""

    examples: Examples
    new_since_ms: Integers

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: Integers | Mask) -> "NewLabels":
        return NewLabels(self.examples.take(rows), self.new_since_ms[rows])

    def pending(self, negative_delays: Mapping[str, int] = MappingProxyType({})) -> Examples:
        """The rows that have new labels, with these labels alone, ordered by availability."""
        labelled = self._drop_learned_labels()
        rows = np.flatnonzero(has_any_label(labelled.labels, len(self)))
        return labelled.take(rows[np.argsort(self.available_ms(negative_delays)[rows], kind="stable")])

    def _drop_learned_labels(self) -> Examples:
        """All rows, with their new labels alone."""
        labels = {
            name: np.where(self._is_new(name), label, -1 if label.dtype == np.int64 else np.nan).astype(label.dtype)
            for name, label in self.examples.labels.items()
        }
        return self.examples.with_labels(labels)

    def _is_new(self, task: str) -> Mask:
        is_new: Mask = self.examples.known_ms[task] >= self.new_since_ms
        return is_new

    def first_seen(self) -> Examples:
        """The examples of which earlier updates had no revision."""
        examples = self.examples
        was_learned = [examples.has_label(task) & ~self._is_new(task.name) for task in examples.tasks]
        return examples.take(~np.logical_or.reduce(was_learned))

    def available_ms(self, negative_delays: Mapping[str, int]) -> Integers:
        """When the new labels of each row (N,) could be known, positive or negative; without any, its event's time.

        `negative_delays`: from event to negative label, in ms by task; see `estimate_negative_delays`.
        """
        examples, available_ms = self.examples, self.examples.ts_ms
        for name, label in examples.labels.items():
            is_new = has_label(label) & self._is_new(name)
            settled_ms = np.maximum(examples.known_ms[name], examples.ts_ms + negative_delays.get(name, 0))
            available_ms = np.where(is_new, np.maximum(available_ms, settled_ms), available_ms)
        return available_ms

    def most_recent(self, share: float, negative_delays: Mapping[str, int]) -> Mask:
        """The rows (N,) that are the latest share of their family, by availability."""
        if not len(self):
            return np.zeros(0, np.bool_)
        families = assign_families(self._drop_learned_labels())
        return select_latest(self.available_ms(negative_delays), families, share)

    def to_parquet(self) -> bytes:
        """Empty for no rows."""
        return to_parquet(self.examples, {NEW_SINCE: self.new_since_ms}) if len(self) else b""


def read_new_labels(content: bytes, metadata: CheckpointMetadata) -> NewLabels:
    """The rows of `NewLabels.to_parquet`."""
    examples, table = read_examples(content, *metadata.schema()), read_table(content)
    new_since_ms = dict(zip(table.column("example_id").to_pylist(), table.column(NEW_SINCE).to_pylist(), strict=True))
    return NewLabels(examples, np.array([new_since_ms[ident] for ident in examples.example_id.tolist()], np.int64))


def find_new_labels(rows: Sequence[Example], examples: Examples) -> NewLabels:
    """The newest revisions of these rows. The lowest revision among them shows what earlier updates had learned."""
    earliest: dict[str, Example] = {}
    for row in rows:
        lowest = earliest.setdefault(row.example_id, row)
        if row.revision < lowest.revision:
            earliest[row.example_id] = row
    first_rows = [earliest[ident] for ident in examples.example_id.tolist()]
    new_since_ms = [max((row.known_ms.get(task, 0) for task in row.labels), default=0) for row in first_rows]
    return NewLabels(examples, np.array(new_since_ms, np.int64))


def concatenate_pending(parts: Sequence[NewLabels], negative_delays: Mapping[str, int]) -> Examples:
    """The pending rows part by part; an example of two parts is there twice."""
    return concatenate_examples([part.pending(negative_delays) for part in parts])


def merge_new_labels(parts: Sequence[NewLabels]) -> NewLabels:
    """One set: the newest revision of each example, new since the earliest time that any part has for it."""
    new_since_ms = dict[str, int]()
    for part in parts:
        for ident, ms in zip(part.examples.example_id.tolist(), part.new_since_ms.tolist(), strict=True):
            new_since_ms[ident] = min(new_since_ms.get(ident, ms), ms)
    examples = merge_examples([part.examples for part in parts])
    return NewLabels(examples, np.array([new_since_ms[ident] for ident in examples.example_id.tolist()], np.int64))


def estimate_negative_delays(parts: Sequence[Examples]) -> dict[str, int]:
    """The time from event to negative label, in ms, of each binary or graded task: nearly the longest seen.

    Rare-positive tasks are left out: fraud is labelled within days and its absence after weeks, too long for
    updates to wait.
    """
    delays = dict[str, int]()
    for task in parts[0].tasks:
        if task.kind in ("binary", "graded") and not GRAPHS[task.graph].is_rare_positive:
            lags = [part.known_ms[task.name] - part.ts_ms for part in parts]
            negatives = [lag[part.labels[task.name] < LABEL_THRESHOLD] for lag, part in zip(lags, parts, strict=True)]
            if sum(map(len, negatives)):
                delays[task.name] = max(int(np.quantile(np.concatenate(negatives), DELAY_QUANTILE)), 0)
    return delays
