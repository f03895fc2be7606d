"""What examples are like before anything learns from them: missing and odd values, column by column, label by label.

A feature is looked at where its group is: an order has no query, which is no gap. Outliers are what the network's own
bounds would clip, were they measured on all of these rows (`model.statistics`).
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

from contract.features import GROUPS, Feature
from contract.tasks import Task
from model.statistics import measure_number
from training.examples import Examples, is_empty
from training.table import read_table

BARS: Final = 24  # of a histogram, or commonest ids
MISSING_MOST: Final = 0.95  # from here on a column says next to nothing
DAYS_MAX: Final = 400
Values = npt.NDArray[Any]


class Column(msgspec.Struct, frozen=True, kw_only=True):
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
        found = ["no rows"] * (not self.rows)
        found += ["always missing"] * (self.rows > 0 and self.missing == 1)
        found += ["mostly missing"] * (MISSING_MOST <= self.missing < 1)
        found += ["constant"] * (self.distinct == 1 and self.missing == 0)
        found += [f"same as {self.same_as}"] * (self.same_as is not None)
        found += [f"{self.infinite:,} infinite"] * (self.infinite > 0)
        return found


class Label(msgspec.Struct, frozen=True, kw_only=True):
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


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """`file_rows`: of the file. Of one id the newest revision is an example, and a row without a label is none."""

    data: str
    data_sha256: str
    features: str
    file_rows: int
    examples: int
    columns: list[Column]
    labels: list[Label]

    @property
    def odd(self) -> list[str]:
        """All that a person should look at, as sentences."""
        columns = [f"`{one.name}` ({one.group}): {', '.join(one.oddities)}." for one in self.columns if one.oddities]
        return columns + [f"Task `{one.task}`: {', '.join(one.oddities)}." for one in self.labels if one.oddities]


def describe(data: Path, examples: Examples) -> Description:
    """Describe the examples that were read from a file."""
    return Description(
        data=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        features=examples.features.digest,
        file_rows=len(read_table(data)),
        examples=len(examples),
        columns=[column for group in GROUPS for column in columns_of(group, examples)],
        labels=[label_of(task, examples) for task in examples.tasks],
    )


def columns_of(group: str, examples: Examples) -> Iterator[Column]:
    """The features of a group; of equal ones, all but the first say which they equal."""
    block = examples.blocks[group]
    rows = block.take(np.flatnonzero(~is_empty(block)))
    first = dict[tuple[str, str], str]()
    for feature, values in values_of(group, examples, rows.numbers, rows.ids):
        column = (of_numbers if feature.kind == "number" else of_lists)(feature, values)
        same = first.setdefault((feature.kind, fingerprint(values)), feature.name)
        alike = same != feature.name and column.distinct > 1
        yield replace(column, same_as=same if alike else None)


def values_of(group: str, examples: Examples, numbers: Values, ids: Values) -> Iterator[tuple[Feature, Values]]:
    """Each feature with its columns: numbers (N,), or vectors and ids (N, width)."""
    features = examples.features
    for at, feature in enumerate(features.numbers(group)):
        yield feature, numbers[:, at]
    for source, spans in ((numbers, features.vectors(group)), (ids, features.spans(group))):
        for span in spans:
            yield span.feature, source[:, span.start : span.start + span.width]


def fingerprint(values: Values) -> str:
    """Equal for equal columns; every NaN is the same NaN."""
    plain = np.where(np.isnan(values), np.float32(np.nan), values) if values.dtype == np.float32 else values
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(plain).tobytes())


def of_numbers(feature: Feature, values: Values) -> Column:
    """A column of numbers (N,)."""
    finite = values[np.isfinite(values)].astype(np.float64)
    about: dict[str, Any] = {}
    if len(finite):
        bounds = measure_number(values)
        outside = (finite < bounds.low) | (finite > bounds.high)
        steps = np.histogram(finite[~outside], bins=BARS, range=(bounds.low, max(bounds.high, bounds.low + 1e-9)))[0]
        low, median, high = (float(value) for value in np.quantile(finite, (0, 0.5, 1)))
        about = {"low": low, "median": median, "high": high, "outliers": float(outside.sum() / len(values))}
        about |= {"clip_low": bounds.low, "clip_high": bounds.high, "bars": tuple(steps.tolist())}
    return Column(
        group=feature.group,
        name=feature.name,
        kind=feature.kind,
        rows=len(values),
        missing=share(np.isnan(values)),
        distinct=len(np.unique(finite)),
        infinite=int(np.isinf(values).sum()),
        **about,
    )


def of_lists(feature: Feature, values: Values) -> Column:
    """A column of ids or vectors (N, width); a row without any is missing."""
    if feature.kind == "vector":
        empty = np.asarray(np.isnan(values).any(1))
        distinct, counts = len(np.unique(values[~empty], axis=0)), np.zeros(0, np.int64)
    else:
        empty = np.asarray((values == 0).all(1))
        counts = np.unique(values[values != 0], return_counts=True)[1]
        distinct = len(counts)
    return Column(
        group=feature.group,
        name=feature.name,
        kind=feature.kind,
        rows=len(values),
        missing=share(empty),
        distinct=distinct,
        infinite=int(np.isinf(values).sum()) if feature.kind == "vector" else 0,
        bars=tuple(np.sort(counts)[::-1][:BARS].tolist()),
    )


def share(rows: npt.NDArray[np.bool_]) -> float:
    return float(rows.mean()) if len(rows) else 0.0


def label_of(task: Task, examples: Examples) -> Label:
    """The labels of a task, and how they went over time."""
    rows = examples.known(task)
    y, ts_ms, known_ms = examples.labels[task.name][rows], examples.ts_ms[rows], examples.known_ms[task.name][rows]
    named = task.kind == "multiclass"
    classes: Mapping[str, int] = (
        {name: int((y == at).sum()) for at, name in enumerate(examples.classes[task.name])} if named else {}
    )
    waits = known_ms[known_ms > 0] - ts_ms[known_ms > 0]
    return Label(
        task=task.name,
        kind=task.kind,
        rows=len(y),
        mean=float(y.mean()) if len(y) and not named else None,
        classes=dict(classes),
        constant=bool(len(y) and (y == y[0]).all()),
        first=day_of(ts_ms.min()) if ts_ms.any() else None,
        last=day_of(ts_ms.max()) if ts_ms.any() else None,
        known_after_s=float(np.median(waits)) / 1_000 if len(waits) else None,
        days=by_day(ts_ms, y, named=named) if ts_ms.any() else {},
    )


def by_day(ts_ms: Values, y: Values, *, named: bool) -> dict[str, tuple[int, float | None]]:
    """Rows and mean label of the latest days."""
    day, place = np.unique(ts_ms // 86_400_000, return_inverse=True)
    counts, sums = np.bincount(place), np.bincount(place, weights=y)
    each = list(zip(day.tolist(), counts.tolist(), sums.tolist(), strict=True))[-DAYS_MAX:]
    return {day_of(at * 86_400_000): (count, None if named else total / count) for at, count, total in each}


def day_of(ts_ms: int) -> str:
    return datetime.fromtimestamp(int(ts_ms) / 1_000, UTC).date().isoformat()
