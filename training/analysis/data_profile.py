"""Data profile of examples before training: missing and suspicious values of each feature and label.

A feature is measured on the rows that have its group: an order has no query, which is not a missing value. Outliers are
values beyond the clip bounds that the network would measure on all of these rows (`model.feature_statistics`).
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import xxhash
from msgspec.structs import replace

from contract.arrays import Array, Mask
from contract.features.declaration import GROUPS, Feature
from contract.tasks import Task
from contract.units import DAY_MS, SECOND_MS
from model.feature_statistics import measure_number
from training.data.examples import Examples, is_empty
from training.data.parquet import read_table

BARS_MAX: Final = 24  # bars of a histogram, or most frequent ids
MOSTLY_MISSING: Final = 0.95
DAYS_MAX: Final = 400


class ColumnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over the `rows` that have its group; shares are of those rows.

    `distinct`: values, or ids for lists of ids. `low`, `median`, `high`: of finite numbers. `outliers`: the share below
    `clip_low` or above `clip_high`. `bars`: for numbers a histogram between the clip bounds, for ids the counts of the
    most frequent ones.
    """

    group: str
    name: str
    kind: str
    rows: int
    missing: float
    distinct: int
    infinite: int = 0
    low: float | None = None
    median: float | None = None
    high: float | None = None
    clip_low: float | None = None
    clip_high: float | None = None
    outliers: float | None = None
    same_as: str | None = None
    bars: tuple[int, ...] = ()

    @property
    def oddities(self) -> list[str]:
        """What should be checked by a person."""
        oddities = list[str]()
        if not self.rows:
            oddities.append("no rows")
        elif self.missing == 1:
            oddities.append("always missing")
        elif self.missing >= MOSTLY_MISSING:
            oddities.append("mostly missing")
        if self.distinct == 1 and self.missing == 0:
            oddities.append("constant")
        if self.same_as is not None:
            oddities.append(f"same as {self.same_as}")
        if self.infinite:
            oddities.append(f"{self.infinite:,} infinite")
        return oddities


class LabelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One task's labels. `mean`: of numbers; `classes`: rows by class. `known_after_s`: the median delay of a label.

    `days`: the labelled rows of each day and their mean label, None for classes.
    """

    task: str
    kind: str
    rows: int
    mean: float | None
    classes: dict[str, int]
    constant: bool
    first: str | None
    last: str | None
    known_after_s: float | None
    days: dict[str, tuple[int, float | None]]

    @property
    def oddities(self) -> list[str]:
        if not self.rows:
            return ["no labels"]
        return ["only one value"] if self.constant else []


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A file of `file_rows` rows; only the newest revision of an id with a label is an example."""

    data: str
    data_sha256: str
    features: str
    file_rows: int
    examples: int
    columns: list[ColumnSummary]
    labels: list[LabelSummary]

    @property
    def odd(self) -> list[str]:
        """The oddities of all columns and labels, as sentences."""
        subjects = [(f"`{column.name}` ({column.group})", column.oddities) for column in self.columns]
        subjects += [(f"Task `{label.task}`", label.oddities) for label in self.labels]
        return [f"{subject}: {', '.join(oddities)}." for subject, oddities in subjects if oddities]


def summarize_examples(data: Path, examples: Examples) -> DatasetSummary:
    """Describe the examples that were read from a file."""
    return DatasetSummary(
        data=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        features=examples.features.digest,
        file_rows=len(read_table(data)),
        examples=len(examples),
        columns=[column for group in GROUPS for column in summarize_group(group, examples)],
        labels=[summarize_label(task, examples) for task in examples.tasks],
    )


def summarize_group(group: str, examples: Examples) -> Iterator[ColumnSummary]:
    """The features of a group; `same_as` of a feature names the first one with equal values."""
    block = examples.blocks[group]
    rows = block.take(np.flatnonzero(~is_empty(block)))
    first_with_values = dict[tuple[str, str], str]()
    for feature, values in iterate_columns(group, examples, rows.numbers, rows.ids):
        summarize = summarize_numbers if feature.kind == "number" else summarize_lists
        column = summarize(feature, values)
        first_name = first_with_values.setdefault((feature.kind, hash_values(values)), feature.name)
        is_copy = first_name != feature.name and column.distinct > 1
        yield replace(column, same_as=first_name if is_copy else None)


def iterate_columns(group: str, examples: Examples, numbers: Array, ids: Array) -> Iterator[tuple[Feature, Array]]:
    """Each feature with its values: numbers (N,), or vectors and ids (N, width)."""
    features = examples.features
    for index, feature in enumerate(features.numbers(group)):
        yield feature, numbers[:, index]
    for source, spans in ((numbers, features.vectors(group)), (ids, features.spans(group))):
        for span in spans:
            yield span.feature, source[:, span.start : span.start + span.width]


def hash_values(values: Array) -> str:
    """A digest, equal for equal columns; all NaN payloads are equal."""
    plain = np.where(np.isnan(values), np.float32(np.nan), values) if values.dtype == np.float32 else values
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(plain).tobytes())


def summarize_numbers(feature: Feature, values: Array) -> ColumnSummary:
    """A column of numbers (N,)."""
    finite = values[np.isfinite(values)].astype(np.float64)
    statistics: dict[str, Any] = {}
    if len(finite):
        bounds = measure_number(values)
        outside = (finite < bounds.low) | (finite > bounds.high)
        limits = bounds.low, max(bounds.high, bounds.low + 1e-9)
        bars, _ = np.histogram(finite[~outside], bins=BARS_MAX, range=limits)
        low, median, high = (float(value) for value in np.quantile(finite, (0, 0.5, 1)))
        statistics = {"low": low, "median": median, "high": high, "outliers": float(outside.sum() / len(values))}
        statistics |= {"clip_low": bounds.low, "clip_high": bounds.high, "bars": tuple(bars.tolist())}
    return ColumnSummary(
        group=feature.group,
        name=feature.name,
        kind=feature.kind,
        rows=len(values),
        missing=mean_of_mask(np.isnan(values)),
        distinct=len(np.unique(finite)),
        infinite=int(np.isinf(values).sum()),
        **statistics,
    )


def summarize_lists(feature: Feature, values: Array) -> ColumnSummary:
    """A column of ids or vectors (N, width); a row without any value is missing."""
    if feature.kind == "vector":
        empty = np.asarray(np.isnan(values).any(1))
        distinct, counts = len(np.unique(values[~empty], axis=0)), np.zeros(0, np.int64)
    else:
        empty = np.asarray((values == 0).all(1))
        counts = np.unique(values[values != 0], return_counts=True)[1]
        distinct = len(counts)
    return ColumnSummary(
        group=feature.group,
        name=feature.name,
        kind=feature.kind,
        rows=len(values),
        missing=mean_of_mask(empty),
        distinct=distinct,
        infinite=int(np.isinf(values).sum()) if feature.kind == "vector" else 0,
        bars=tuple(np.sort(counts)[::-1][:BARS_MAX].tolist()),
    )


def mean_of_mask(rows: Mask) -> float:
    return float(rows.mean()) if len(rows) else 0.0


def summarize_label(task: Task, examples: Examples) -> LabelSummary:
    """The labels of a task, and their means by day."""
    rows = examples.has_label(task)
    y, ts_ms = examples.labels[task.name][rows], examples.ts_ms[rows]
    known_ms = examples.known_ms[task.name][rows]
    is_multiclass = task.kind == "multiclass"
    names = examples.classes[task.name] if is_multiclass else ()
    delays_ms = known_ms[known_ms > 0] - ts_ms[known_ms > 0]
    return LabelSummary(
        task=task.name,
        kind=task.kind,
        rows=len(y),
        mean=float(y.mean()) if len(y) and not is_multiclass else None,
        classes={name: int((y == index).sum()) for index, name in enumerate(names)},
        constant=bool(len(y) and (y == y[0]).all()),
        first=format_day(ts_ms.min()) if ts_ms.any() else None,
        last=format_day(ts_ms.max()) if ts_ms.any() else None,
        known_after_s=float(np.median(delays_ms)) / SECOND_MS if len(delays_ms) else None,
        days=count_by_day(ts_ms, y, has_mean=not is_multiclass) if ts_ms.any() else {},
    )


def count_by_day(ts_ms: Array, y: Array, *, has_mean: bool) -> dict[str, tuple[int, float | None]]:
    """Rows and mean label of each of the latest days."""
    day, index = np.unique(ts_ms // DAY_MS, return_inverse=True)
    counts, sums = np.bincount(index), np.bincount(index, weights=y)
    rows = list(zip(day.tolist(), counts.tolist(), sums.tolist(), strict=True))[-DAYS_MAX:]
    return {format_day(number * DAY_MS): (count, total / count if has_mean else None) for number, count, total in rows}


def format_day(ts_ms: int) -> str:
    return datetime.fromtimestamp(int(ts_ms) / SECOND_MS, UTC).date().isoformat()
