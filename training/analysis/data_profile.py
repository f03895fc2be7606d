"""What examples are like before anything learns from them: missing and odd values, column by column, label by label.

A feature is looked at where its group is: an order has no query, which is no gap. Outliers are what the network's own
bounds would clip, were they measured on all of these rows (`model.feature_statistics`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash
from msgspec.structs import replace

from contract.features.declaration import GROUPS, Feature
from contract.tasks import Task
from model.feature_statistics import measure_number
from training.data.examples import Examples, is_empty
from training.data.parquet import read_table

BARS_MAX: Final = 24  # of a histogram, or commonest ids
MOSTLY_MISSING: Final = 0.95  # from here on a column says next to nothing
DAYS_MAX: Final = 400
Values = npt.NDArray[Any]


class ColumnSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One feature over the `rows` that have its group; shares are of those rows.

    `distinct`: values, or ids where there are several in a row. `low`, `median`, `high`: of finite numbers. `outliers`:
    the share below `clip_low` or above `clip_high`. `bars`: of numbers how many fall into equal steps between the
    clips, of ids how often the commonest ones are there.
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
        """What a person should look at."""
        oddities = ["no rows"] * (not self.rows)
        oddities += ["always missing"] * (self.rows > 0 and self.missing == 1)
        oddities += ["mostly missing"] * (MOSTLY_MISSING <= self.missing < 1)
        oddities += ["constant"] * (self.distinct == 1 and self.missing == 0)
        oddities += [f"same as {self.same_as}"] * (self.same_as is not None)
        oddities += [f"{self.infinite:,} infinite"] * (self.infinite > 0)
        return oddities


class LabelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One task's labels. `mean`: of numbers; `classes`: rows of each. `known_after_s`: the median wait for a label.

    `days`: for each day, the rows with a label and their mean; of classes the mean is None.
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
        return ["no labels"] * (not self.rows) + ["one value alone"] * self.constant


class DatasetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`file_rows`: of the file. Of one id the newest revision is an example, and a row without a label is none."""

    data: str
    data_sha256: str
    features: str
    file_rows: int
    examples: int
    columns: list[ColumnSummary]
    labels: list[LabelSummary]

    @property
    def odd(self) -> list[str]:
        """All that a person should look at, as sentences."""
        columns = [
            f"`{summary.name}` ({summary.group}): {', '.join(summary.oddities)}."
            for summary in self.columns
            if summary.oddities
        ]
        return columns + [
            f"Task `{summary.task}`: {', '.join(summary.oddities)}." for summary in self.labels if summary.oddities
        ]


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
    """The features of a group; of equal ones, all but the first say which they equal."""
    block = examples.blocks[group]
    rows = block.take(np.flatnonzero(~is_empty(block)))
    first = dict[tuple[str, str], str]()
    for feature, values in iterate_columns(group, examples, rows.numbers, rows.ids):
        column = (summarize_numbers if feature.kind == "number" else summarize_lists)(feature, values)
        same = first.setdefault((feature.kind, hash_values(values)), feature.name)
        alike = same != feature.name and column.distinct > 1
        yield replace(column, same_as=same if alike else None)


def iterate_columns(group: str, examples: Examples, numbers: Values, ids: Values) -> Iterator[tuple[Feature, Values]]:
    """Each feature with its columns: numbers (N,), or vectors and ids (N, width)."""
    features = examples.features
    for index, feature in enumerate(features.numbers(group)):
        yield feature, numbers[:, index]
    for source, spans in ((numbers, features.vectors(group)), (ids, features.spans(group))):
        for span in spans:
            yield span.feature, source[:, span.start : span.start + span.width]


def hash_values(values: Values) -> str:
    """Equal for equal columns; every NaN is the same NaN."""
    plain = np.where(np.isnan(values), np.float32(np.nan), values) if values.dtype == np.float32 else values
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(plain).tobytes())


def summarize_numbers(feature: Feature, values: Values) -> ColumnSummary:
    """A column of numbers (N,)."""
    finite = values[np.isfinite(values)].astype(np.float64)
    statistics: dict[str, Any] = {}
    if len(finite):
        bounds = measure_number(values)
        outside = (finite < bounds.low) | (finite > bounds.high)
        steps = np.histogram(finite[~outside], bins=BARS_MAX, range=(bounds.low, max(bounds.high, bounds.low + 1e-9)))[
            0
        ]
        low, median, high = (float(value) for value in np.quantile(finite, (0, 0.5, 1)))
        statistics = {"low": low, "median": median, "high": high, "outliers": float(outside.sum() / len(values))}
        statistics |= {"clip_low": bounds.low, "clip_high": bounds.high, "bars": tuple(steps.tolist())}
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


def summarize_lists(feature: Feature, values: Values) -> ColumnSummary:
    """A column of ids or vectors (N, width); a row without any is missing."""
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


def mean_of_mask(rows: npt.NDArray[np.bool_]) -> float:
    return float(rows.mean()) if len(rows) else 0.0


def summarize_label(task: Task, examples: Examples) -> LabelSummary:
    """The labels of a task, and how they went over time."""
    rows = examples.has_label(task)
    y, ts_ms, known_ms = examples.labels[task.name][rows], examples.ts_ms[rows], examples.known_ms[task.name][rows]
    named = task.kind == "multiclass"
    classes: Mapping[str, int] = (
        {name: int((y == index).sum()) for index, name in enumerate(examples.classes[task.name])} if named else {}
    )
    waits = known_ms[known_ms > 0] - ts_ms[known_ms > 0]
    return LabelSummary(
        task=task.name,
        kind=task.kind,
        rows=len(y),
        mean=float(y.mean()) if len(y) and not named else None,
        classes=dict(classes),
        constant=bool(len(y) and (y == y[0]).all()),
        first=format_day(ts_ms.min()) if ts_ms.any() else None,
        last=format_day(ts_ms.max()) if ts_ms.any() else None,
        known_after_s=float(np.median(waits)) / 1_000 if len(waits) else None,
        days=count_by_day(ts_ms, y, named=named) if ts_ms.any() else {},
    )


def count_by_day(ts_ms: Values, y: Values, *, named: bool) -> dict[str, tuple[int, float | None]]:
    """Rows and mean label of the latest days."""
    day, index = np.unique(ts_ms // 86_400_000, return_inverse=True)
    counts, sums = np.bincount(index), np.bincount(index, weights=y)
    rows = list(zip(day.tolist(), counts.tolist(), sums.tolist(), strict=True))[-DAYS_MAX:]
    return {format_day(number * 86_400_000): (count, None if named else total / count) for number, count, total in rows}


def format_day(ts_ms: int) -> str:
    return datetime.fromtimestamp(int(ts_ms) / 1_000, UTC).date().isoformat()
