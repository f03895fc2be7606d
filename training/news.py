"""News: what in newly arrived examples has not been learned yet, in the order in which it became known.

A click is told at once, and told again with the purchase an hour later. Learned twice, clicks would count double
against what was never clicked, the more so the more often a model is updated. So of a later revision only those labels
are news that no revision of an earlier update had. And a click is known half an hour before "no click" is; in the order
of events the newest rows would all be clicks. In the order of becoming known, yes and no come as they happen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.rows import Example
from model.checkpoint import About
from training.examples import Examples, Integers
from training.labels import any_known
from training.sample import meaning, one_after_another
from training.split import family_of, late
from training.table import read_examples, read_table, to_parquet

TOLD: Final = "told_ms"


@dataclass(frozen=True, slots=True)
class News:
    """N examples as they are now; what became known of one before `told_ms` (N,) was learned by an earlier update."""

    examples: Examples
    told_ms: Integers

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, rows: Integers | npt.NDArray[np.bool_]) -> "News":
        return News(self.examples.take(rows), self.told_ms[rows])

    def unlearned(self) -> Examples:
        """The rows that have news, with the labels that are, in the order in which they became known."""
        found = self.examples
        labels = {
            name: np.where(found.known_ms[name] >= self.told_ms, label, -1 if label.dtype == np.int64 else np.nan)
            for name, label in found.labels.items()
        }
        labels = {name: label.astype(found.labels[name].dtype) for name, label in labels.items()}
        rows = np.flatnonzero(any_known(labels, len(found)))
        order = np.argsort(known_since(found.labelled(labels))[rows], kind="stable")
        return found.labelled(labels).take(rows[order])

    def first_met(self) -> Examples:
        """The examples of which no earlier update had any revision."""
        found = self.examples
        before = [found.known(t) & (found.known_ms[t.name] < self.told_ms) for t in found.tasks]
        return found.take(~np.logical_or.reduce(before))

    def parted(self, held_out: float) -> tuple["News", "News"]:
        """What is learned now, and the latest share of each family, which judges first."""
        news = self.unlearned()
        ids = set(news.example_id[late(known_since(news), family_of(news), held_out)].tolist())
        held = np.array([ident in ids for ident in self.examples.example_id.tolist()], np.bool_)
        return self.take(~held), self.take(held)

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
        known = first.setdefault(row.example_id, row)
        if row.revision < known.revision:
            first[row.example_id] = row
    told = [
        max((first[i].known_ms.get(t, 0) for t in first[i].labels), default=0) for i in examples.example_id.tolist()
    ]
    return News(examples, np.array(told, np.int64))


def in_turn(parts: Sequence[News]) -> Examples:
    """What is to be learned of some news, one after another, an example of two of them twice."""
    return one_after_another([part.unlearned() for part in parts])


def known_since(examples: Examples) -> Integers:
    """When the last of each example's labels became known (N,)."""
    known = [np.where(examples.known(t), examples.known_ms[t.name], 0) for t in examples.tasks]
    return np.max(known, axis=0) if known else examples.ts_ms
