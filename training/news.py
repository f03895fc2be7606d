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

from contract.rows import Example
from model.checkpoint import About
from training.evaluation import ALARMS
from training.examples import Examples, Integers
from training.labels import any_known, known
from training.sample import meaning, one_after_another, together
from training.split import family_of, late
from training.table import read_examples, read_table, to_parquet

TOLD: Final = "told_ms"
MIDDLE: Final = 0.5  # of a label that happens or does not
NEARLY_ALL: Final = 0.99

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class News:
    """N examples as they are now; what became known of one before `told_ms` (N,) was learned by an earlier update."""

    examples: Examples
    told_ms: Integers

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: Integers | npt.NDArray[np.bool_]) -> "News":
        return News(self.examples.take(rows), self.told_ms[rows])

    def unlearned(self, waits: Mapping[str, int] = MappingProxyType({})) -> Examples:
        """The rows that have news, with the labels that are, in the order in which they were due."""
        labelled = self._relabelled()
        rows = np.flatnonzero(any_known(labelled.labels, len(self)))
        return labelled.take(rows[np.argsort(self.due_ms(waits)[rows], kind="stable")])

    def _relabelled(self) -> Examples:
        """All rows, with those labels alone that are news."""
        found = self.examples
        labels = {
            name: np.where(found.known_ms[name] >= self.told_ms, label, -1 if label.dtype == np.int64 else np.nan)
            for name, label in found.labels.items()
        }
        return found.labelled({name: label.astype(found.labels[name].dtype) for name, label in labels.items()})

    def first_met(self) -> Examples:
        """The examples of which no earlier update had any revision."""
        found = self.examples
        before = [found.known(t) & (found.known_ms[t.name] < self.told_ms) for t in found.tasks]
        return found.take(~np.logical_or.reduce(before))

    def due_ms(self, waits: Mapping[str, int]) -> Integers:
        """When both a yes and a no of all that is news of each row (N,) could be known; without news, its event's time.

        `waits`: of some tasks, how long after its event a no is told. See `waits_in`.
        """
        found, due_ms = self.examples, self.examples.ts_ms
        for name, label in found.labels.items():
            told = known(label) & (found.known_ms[name] >= self.told_ms)
            could_ms = np.maximum(found.known_ms[name], found.ts_ms + waits.get(name, 0))
            due_ms = np.where(told, np.maximum(due_ms, could_ms), due_ms)
        return due_ms

    def latest(self, share: float, waits: Mapping[str, int]) -> Mask:
        """The rows (N,) that are the latest share of their family of news, by when they were due."""
        return late(self.due_ms(waits), family_of(self._relabelled()), share) if len(self) else np.zeros(0, np.bool_)

    def parquet(self) -> bytes:
        """None: no bytes."""
        return to_parquet(self.examples, {TOLD: self.told_ms}) if len(self) else b""


def read_news(content: bytes, about: About) -> News:
    """What `News.parquet` wrote."""
    examples, table = read_examples(content, *meaning(about)), read_table(content)
    told = dict(zip(table.column("example_id").to_pylist(), table.column(TOLD).to_pylist(), strict=True))
    return News(examples, np.array([told[ident] for ident in examples.example_id.tolist()], np.int64))


def news_in(rows: Sequence[Example], examples: Examples) -> News:
    """The newest revisions of these rows as news; the least revision among them tells what was not learned before."""
    first: dict[str, Example] = {}
    for row in rows:
        least = first.setdefault(row.example_id, row)
        if row.revision < least.revision:
            first[row.example_id] = row
    told = [
        max((first[i].known_ms.get(t, 0) for t in first[i].labels), default=0) for i in examples.example_id.tolist()
    ]
    return News(examples, np.array(told, np.int64))


def in_turn(parts: Sequence[News], waits: Mapping[str, int]) -> Examples:
    """What is to be learned of some news, one after another, an example of two of them twice."""
    return one_after_another([part.unlearned(waits) for part in parts])


def joined(parts: Sequence[News]) -> News:
    """News of several times as one: of an id the newest revision, with what any of them had not learned."""
    told = dict[str, int]()
    for part in parts:
        for ident, ms in zip(part.examples.example_id.tolist(), part.told_ms.tolist(), strict=True):
            told[ident] = min(told.get(ident, ms), ms)
    examples = together([part.examples for part in parts])
    return News(examples, np.array([told[ident] for ident in examples.example_id.tolist()], np.int64))


def waits_in(parts: Sequence[Examples]) -> dict[str, int]:
    """How long after its event a no is told, of each task that happens or does not within a visit.

    Alarms are left out: fraud is told within days and its absence after weeks, which nobody can wait for.
    """
    found = dict[str, int]()
    for task in parts[0].tasks:
        if task.kind in ("binary", "graded") and task.graph not in ALARMS:
            lags = [part.known_ms[task.name] - part.ts_ms for part in parts]
            noes = [lag[part.labels[task.name] < MIDDLE] for lag, part in zip(lags, parts, strict=True)]
            if sum(map(len, noes)):
                found[task.name] = max(int(np.quantile(np.concatenate(noes), NEARLY_ALL)), 0)
    return found
