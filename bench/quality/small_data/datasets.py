"""Real tables of a few ten thousand rows, each with one task: what a shop has when it begins.

Features of a row are its own fields and counts of earlier rows, so that no label and no later row reaches them.
Each seed draws other people, customers or reviews: payments have some 80 frauds in a test part, and the noise of so few
is larger than that of fits.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.quality.census.dataset import FILE as CENSUS_FILE
from bench.quality.census.dataset import read_census
from contract.arrays import Array, Floats, Integers
from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from contract.units import DAY_MS
from training.data.examples import Examples
from training.data.tabular import examples_from_table

PAYMENTS_FILE: Final = Path("fraud_handbook") / "transactions.parquet"
REVIEWS_FILE: Final = Path("yelp_chi") / "reviews.parquet"
ROWS: Final = 50_000  # of each table: 40,000 to train, 10,000 to evaluate


class Dataset(NamedTuple):
    """A table: its file below the folder of data, and the function that makes its examples."""

    file: Path
    read: Callable[[Path, int], Examples]  # the folder of data, and the seed of the sample


def read_income(folder: Path, seed: int) -> Examples:
    """Census-Income: a random sample of people, with one of its tasks."""
    examples = read_census(folder)
    rows = np.random.default_rng(seed).permutation(len(examples))[:ROWS]
    return examples.take(rows).for_tasks([task for task in examples.tasks if task.name == "income"])


def read_payments(folder: Path, seed: int) -> Examples:
    """Card payments of a few hundred customers, so that each has a history."""
    columns = ["ts_ms", "customer_id", "terminal_id", "amount", "is_fraud"]
    table = pq.read_table(folder / PAYMENTS_FILE, columns=columns).sort_by("ts_ms")
    customers = np.unique(table["customer_id"].to_numpy())
    chosen = np.random.default_rng(seed).permutation(customers)[: max(1, len(customers) * ROWS // len(table))]
    table = table.filter(pa.array(np.isin(table["customer_id"].to_numpy(), chosen)))
    return build_examples(
        table,
        label="is_fraud",
        keys=("customer_id", "terminal_id"),
        numbers=("amount",),
        times=table["ts_ms"].to_numpy(),
    )


def read_reviews(folder: Path, seed: int) -> Examples:
    """Reviews of hotels and restaurants, and what a filter did not recommend."""
    table = pq.read_table(folder / REVIEWS_FILE)
    days = np.asarray(table["date"].to_numpy(zero_copy_only=False), "datetime64[ms]").astype(np.int64)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(table))[:ROWS])
    order = drawn[np.argsort(days[drawn], kind="stable")]
    return build_examples(
        table.take(order), label="spam", keys=("user_id", "product_id"), numbers=("rating",), times=days[order]
    )


def build_examples(
    table: pa.Table, *, label: str, keys: Sequence[str], numbers: Sequence[str], times: Integers
) -> Examples:
    """A task over a table that is sorted by time: its fields, and for each key counts, means and gaps so far."""
    columns: dict[str, Any] = {name: np.asarray(table[name].to_numpy(), np.float64) for name in numbers}
    columns["hour"] = (times // 3_600_000 % 24).astype(np.float64)
    columns["weekday"] = (times // DAY_MS % 7).astype(np.float64)
    for key in keys:
        _, entity = np.unique(table[key].to_numpy(zero_copy_only=False), return_inverse=True)
        columns[f"{key}_rows"], columns[f"{key}_gap_ms"] = count_earlier(entity, times)
        for name in numbers:
            columns[f"{key}_{name}_mean"] = mean_of_earlier(entity, columns[name])
            columns[f"{key}_{name}_ratio"] = columns[name] / columns[f"{key}_{name}_mean"]
    features = FeatureSet(Feature(name, "user", "number", f"column.{name}") for name in columns)
    y = np.asarray(table[label].to_numpy(zero_copy_only=False), np.float64)
    made = pa.table(
        {**columns, "ts_ms": times, "user_id": [str(key) for key in table[keys[0]].to_pylist()], f"label.{label}": y}
    )
    return examples_from_table(made, features, (Task(label, "binary", ("user",), "decide"),))


def count_earlier(entity: Integers, times: Integers) -> tuple[Floats, Floats]:
    """Each row's number among those of its entity (N,), and the time since the one before, NaN for the first."""
    order = np.lexsort((np.arange(len(entity)), entity))
    is_first = np.diff(entity[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    count, gap = np.empty(len(order)), np.empty(len(order))
    count[order] = np.arange(len(order)) - start
    gap[order] = np.where(is_first, np.nan, np.diff(times[order], prepend=0))
    return count, gap


def mean_of_earlier(entity: Integers, values: Array) -> Floats:
    """The mean of the earlier values of each row's entity (N,), NaN for the first."""
    order = np.lexsort((np.arange(len(entity)), entity))
    is_first = np.diff(entity[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    before = np.concatenate([[0.0], np.cumsum(values[order])[:-1]])
    count = np.arange(len(order)) - start
    mean = np.empty(len(order))
    mean[order] = np.where(is_first, np.nan, (before - before[start]) / np.maximum(count, 1))
    return mean


def find_missing(files: Sequence[Path]) -> Path | None:
    """The first of the files that does not exist."""
    return next((path for path in files if not path.is_file()), None)


DATASETS: Final[Mapping[str, Dataset]] = {
    "income": Dataset(CENSUS_FILE, read_income),
    "payments": Dataset(PAYMENTS_FILE, read_payments),
    "reviews": Dataset(REVIEWS_FILE, read_reviews),
}
