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
from training.data.examples import Examples, Integers
from training.data.labels import has_any_label, has_label
from training.data.split import assign_families
from training.metrics.metrics import factorize

FIRST_ORIGIN_SHARE: Final = 0.5  # of the examples with a time, before the first origin
FOLDS_MIN: Final = 2
DAY_MS: Final = 86_400_000
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Fold:
    """What a model may learn from and what judges it. `origin_ms`: the time between; None where chance cut all."""

    number: int
    training: Examples
    validation: Examples
    origin_ms: int | None

    @property
    def validation_ratio(self) -> float:
        return len(self.validation) / len(self.training)


def split_folds(examples: Examples, count: int) -> Iterator[Fold]:
    """`count` folds of these examples, one after the other; raises `BadData` when they are too few."""
    if count < FOLDS_MIN:
        raise BadData(f"Folds should be at least {FOLDS_MIN}. Found {count}.")
    timed, part = has_time(examples), assign_random_parts(examples, count)
    edges = compute_origins(examples.ts_ms[timed], count)
    for number in range(count):
        candidate = build_fold(examples, timed, part, edges, number)
        if not len(candidate.training) or not len(candidate.validation):
            raise BadData(
                f"Each of {count} folds should have examples to learn from and to be judged by. Found "
                f"{len(candidate.training)} and {len(candidate.validation)} in fold {candidate.number} of {len(examples)} examples."
            )
        yield candidate


def drop_unsettled(examples: Examples, window_ms: int) -> Examples:
    """Those older than the newest one by a window in which labels may still change; raises `BadData` for none.

    A purchase may come days after its click. With the last days among them it would look as if nobody bought any more,
    and whoever learned from the days before would seem too sure.
    """
    settled_examples = examples.take(examples.ts_ms <= examples.ts_ms.max() - window_ms) if window_ms else examples
    if not len(settled_examples):
        raise BadData(f"Some examples should be older than the newest by {window_ms / DAY_MS:g} days. Found none.")
    return settled_examples


def build_fold(examples: Examples, timed: Mask, part: Integers, edges: Integers, number: int) -> Fold:
    """The fold of that number, counted from 0."""
    if not timed.any():
        return Fold(number + 1, examples.take(part != number), examples.take(part == number), None)
    start, end = int(edges[number]), int(edges[number + 1])
    before = np.where(timed, examples.ts_ms < start, part != number)
    within = np.where(timed, (examples.ts_ms >= start) & (examples.ts_ms < end), part == number)
    training = hide_later_labels(examples.take(before), timed[before], start)
    return Fold(number + 1, training, examples.take(within), start)


def has_time(examples: Examples) -> Mask:
    """Which rows (N,) are of a family with a time: fewer than half of its rows share one moment."""
    family, is_timed = assign_families(examples), np.zeros(len(examples), np.bool_)
    for number in np.unique(family):
        rows = family == number
        same_time_max = int(np.unique(examples.ts_ms[rows], return_counts=True)[1].max())
        is_timed[rows] = same_time_max < rows.sum() / 2
    return is_timed


def compute_origins(ts_ms: Integers, count: int) -> Integers:
    """The times (count + 1,) at which periods of about equally many examples begin, and where the last one ends."""
    if not len(ts_ms):
        return np.zeros(count + 1, np.int64)
    sorted_ms = np.sort(ts_ms)
    index = np.linspace(FIRST_ORIGIN_SHARE, 1, count + 1)[:-1] * len(sorted_ms)
    return np.append(sorted_ms[index.astype(np.int64)], sorted_ms[-1] + 1)


def assign_random_parts(examples: Examples, count: int) -> Integers:
    """The part (N,) of each row, 0 to count - 1, equal for equal items; without an item, by the example's own id."""
    unit = np.where(examples.item_id == "", examples.example_id, examples.item_id)
    code = factorize(unit)
    permutation = np.random.default_rng(0).permutation(int(code.max(initial=-1)) + 1)
    parts: Integers = permutation[code] % count
    return parts


def hide_later_labels(examples: Examples, timed: Mask, now_ms: int) -> Examples:
    """The same without the labels of timed rows that came later; rows that have none left are not there."""
    labels = {}
    for task, label in examples.labels.items():
        late = timed & has_label(label) & (examples.known_ms[task] > now_ms)
        labels[task] = np.where(late, -1 if label.dtype == np.int64 else np.nan, label).astype(label.dtype)
    return replace(examples, labels=labels).take(has_any_label(labels, len(examples)))
