"""Cross-validation: by rolling origin where there is time, by chance where there is none.

At each origin a model learns from what had happened and was known by then, and is judged by the period that follows
(Tashman 2000). A family of examples without a time of its own, such as a catalogue that was there from the start, is
cut by chance into equal parts; all rows of an item fall into one part, so that none is on both sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.errors import BadData
from training.examples import Examples, Integers
from training.labels import any_known, known
from training.metrics import numbered
from training.split import family_of

FIRST_SHARE: Final = 0.5  # of the examples with a time, before the first origin
FOLDS_MIN: Final = 2
DAY_MS: Final = 86_400_000
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fold:
    """What a model may learn from and what judges it. `origin_ms`: the time between; None where chance cut all."""

    number: int
    learning: Examples
    judging: Examples
    origin_ms: int | None

    @property
    def judged_to_learned(self) -> float:
        return len(self.judging) / len(self.learning)


def cut(examples: Examples, count: int) -> Iterator[Fold]:
    """`count` folds of these examples, one after the other; raises `BadData` when they are too few."""
    if count < FOLDS_MIN:
        raise BadData(f"Folds should be at least {FOLDS_MIN}. Found {count}.")
    timed, part = has_time(examples), parts_by_chance(examples, count)
    edges = origins(examples.ts_ms[timed], count)
    for number in range(count):
        one = fold(examples, timed, part, edges, number)
        if not len(one.learning) or not len(one.judging):
            raise BadData(
                f"Each of {count} folds should have examples to learn from and to be judged by. Found "
                f"{len(one.learning)} and {len(one.judging)} in fold {one.number} of {len(examples)} examples."
            )
        yield one


def settled(examples: Examples, window_ms: int) -> Examples:
    """Those older than the newest one by a window in which labels may still change; raises `BadData` for none.

    A purchase may come days after its click. With the last days among them it would look as if nobody bought any more,
    and whoever learned from the days before would seem too sure.
    """
    kept = examples.take(examples.ts_ms <= examples.ts_ms.max() - window_ms) if window_ms else examples
    if not len(kept):
        raise BadData(f"Some examples should be older than the newest by {window_ms / DAY_MS:g} days. Found none.")
    return kept


def fold(examples: Examples, timed: Mask, part: Integers, edges: Integers, number: int) -> Fold:
    """The fold of that number, counted from 0."""
    if not timed.any():
        return Fold(number + 1, examples.take(part != number), examples.take(part == number), None)
    start, end = int(edges[number]), int(edges[number + 1])
    before = np.where(timed, examples.ts_ms < start, part != number)
    within = np.where(timed, (examples.ts_ms >= start) & (examples.ts_ms < end), part == number)
    learning = known_by(examples.take(before), timed[before], start)
    return Fold(number + 1, learning, examples.take(within), start)


def has_time(examples: Examples) -> Mask:
    """Which rows (N,) are of a family with a time: fewer than half of its rows share one moment."""
    family, found = family_of(examples), np.zeros(len(examples), np.bool_)
    for one in np.unique(family):
        rows = family == one
        most = int(np.unique(examples.ts_ms[rows], return_counts=True)[1].max())
        found[rows] = most < rows.sum() / 2
    return found


def origins(ts_ms: Integers, count: int) -> Integers:
    """The times (count + 1,) at which periods of about equally many examples begin, and where the last one ends."""
    if not len(ts_ms):
        return np.zeros(count + 1, np.int64)
    order = np.sort(ts_ms)
    at = np.linspace(FIRST_SHARE, 1, count + 1)[:-1] * len(order)
    return np.append(order[at.astype(np.int64)], order[-1] + 1)


def parts_by_chance(examples: Examples, count: int) -> Integers:
    """The part (N,) of each row, 0 to count - 1, equal for equal items; without an item, by the example's own id."""
    unit = np.where(examples.item_id == "", examples.example_id, examples.item_id)
    code = numbered(unit)
    order = np.random.default_rng(0).permutation(int(code.max(initial=-1)) + 1)
    found: Integers = order[code] % count
    return found


def known_by(examples: Examples, timed: Mask, now_ms: int) -> Examples:
    """The same without the labels of timed rows that came later; rows that have none left are not there."""
    labels = {}
    for task, label in examples.labels.items():
        late = timed & known(label) & (examples.known_ms[task] > now_ms)
        labels[task] = np.where(late, -1 if label.dtype == np.int64 else np.nan, label).astype(label.dtype)
    return replace(examples, labels=labels).take(any_known(labels, len(examples)))
