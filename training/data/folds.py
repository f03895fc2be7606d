"""Cross-validation folds: by rolling origin for examples with event times, random for examples without.

At each origin a model trains on what had happened and was known by then, and is validated on the following period
(Tashman 2000). A family of examples without event times, such as a catalogue loaded at once, is split into random equal
parts; all rows of an item are in the same part, so that no item is on both sides.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from contract.arrays import Integers, Mask
from contract.errors import BadData
from contract.units import DAY_MS
from training.data.codes import factorize
from training.data.examples import Examples
from training.data.labels import has_any_label, has_label
from training.data.split import assign_families

FIRST_ORIGIN_SHARE: Final = 0.5  # of the timed examples come before the first origin
FOLDS_MIN: Final = 2


@dataclass(frozen=True, slots=True)
class Fold:
    """The training and validation part of a fold. `origin_ms`: the time between; None where all splits are random."""

    number: int
    training: Examples
    validation: Examples
    origin_ms: int | None

    @property
    def validation_ratio(self) -> float:
        return len(self.validation) / len(self.training)


def split_folds(examples: Examples, count: int) -> Iterator[Fold]:
    """`count` folds, in the order of origins; raises `BadData` for too few folds or examples."""
    if count < FOLDS_MIN:
        raise BadData(f"Folds should be at least {FOLDS_MIN}. Found {count}.")
    timed, part = has_time(examples), assign_random_parts(examples, count)
    edges = compute_origins(examples.ts_ms[timed], count)
    for number in range(count):
        fold = build_fold(examples, timed, part, edges, number)
        if not len(fold.training) or not len(fold.validation):
            raise BadData(
                f"Each of {count} folds should have examples for training and for validation. Found "
                f"{len(fold.training)} and {len(fold.validation)} in fold {fold.number} of {len(examples)} examples."
            )
        yield fold


def drop_unsettled(examples: Examples, window_ms: int) -> Examples:
    """The examples older than the newest one by the window in which labels may still change; raises `BadData` for none.

    A purchase may come days after its click. With unsettled days in the validation part purchases would seem to stop,
    and models trained on earlier days would seem overconfident.
    """
    settled = examples.take(examples.ts_ms <= examples.ts_ms.max() - window_ms) if window_ms else examples
    if not len(settled):
        raise BadData(f"Some examples should be older than the newest by {window_ms / DAY_MS:g} days. Found none.")
    return settled


def build_fold(examples: Examples, timed: Mask, part: Integers, edges: Integers, number: int) -> Fold:
    """The fold of that index, from 0."""
    if not timed.any():
        return Fold(number + 1, examples.take(part != number), examples.take(part == number), None)
    start, end = int(edges[number]), int(edges[number + 1])
    before = np.where(timed, examples.ts_ms < start, part != number)
    within = np.where(timed, (examples.ts_ms >= start) & (examples.ts_ms < end), part == number)
    training = hide_later_labels(examples.take(before), timed[before], start)
    return Fold(number + 1, training, examples.take(within), start)


def has_time(examples: Examples) -> Mask:
    """Which rows (N,) are of a family with event times: fewer than half of its rows share one timestamp."""
    family, is_timed = assign_families(examples), np.zeros(len(examples), np.bool_)
    for number in np.unique(family):
        rows = family == number
        same_time_max = int(np.unique(examples.ts_ms[rows], return_counts=True)[1].max())
        is_timed[rows] = same_time_max < rows.sum() / 2
    return is_timed


def compute_origins(ts_ms: Integers, count: int) -> Integers:
    """The start times of `count` periods with about equally many examples, and the end of the last (count + 1,)."""
    if not len(ts_ms):
        return np.zeros(count + 1, np.int64)
    sorted_ms = np.sort(ts_ms)
    index = np.linspace(FIRST_ORIGIN_SHARE, 1, count + 1)[:-1] * len(sorted_ms)
    return np.append(sorted_ms[index.astype(np.int64)], sorted_ms[-1] + 1)


def assign_random_parts(examples: Examples, count: int) -> Integers:
    """The random part (N,) of each row, 0 to count - 1, equal for equal items; without an item by example id."""
    unit = np.where(examples.item_id == "", examples.example_id, examples.item_id)
    code = factorize(unit)
    permutation = np.random.default_rng(0).permutation(int(code.max(initial=-1)) + 1)
    parts: Integers = permutation[code] % count
    return parts


def hide_later_labels(examples: Examples, timed: Mask, now_ms: int) -> Examples:
    """The examples without labels of timed rows that came after `now_ms`; rows without any label left are dropped."""
    labels = {}
    for task, label in examples.labels.items():
        late = timed & has_label(label) & (examples.known_ms[task] > now_ms)
        labels[task] = np.where(late, -1 if label.dtype == np.int64 else np.nan, label).astype(label.dtype)
    return replace(examples, labels=labels).take(has_any_label(labels, len(examples)))
