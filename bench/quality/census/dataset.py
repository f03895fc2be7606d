"""The UCI Census-Income table as examples: two tasks over a person's 38 other answers, split at random.

Protocol: all 42 columns of `test_full42.parquet`; education, marital status and instance weight are not features;
income is one task and marital status ("Never married") the other. 60 % train, 20 % validation, 20 % test.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from training.data.examples import Examples
from training.data.labels import has_any_label
from training.data.tabular import examples_from_table

FILE: Final = Path("census_income") / "test_full42.parquet"
VALIDATION_SHARE: Final = 0.25  # of the rows outside the test set: 20 % of all
TEST_SHARE: Final = 0.2
NUMBERS: Final = (
    "age",
    "wage_per_hour",
    "capital_gains",
    "capital_losses",
    "stock_dividends",
    "num_emp",
    "weeks_worked",
)
EXCLUDED_COLUMNS: Final = ("education", "marital_stat", "instance_weight", "income_50k")
TASKS: Final = tuple(Task(name, "binary", ("user",), "decide") for name in ("income", "married"))


class DataSplit(NamedTuple):
    """One seed's split: `train` includes the validation rows; `test` is used by no step of training."""

    train: Examples
    test: Examples


def read_census(folder: Path) -> Examples:
    """All rows of the file, with both labels."""
    table = pq.read_table(folder / FILE)
    labels = {
        "label.income": pc.match_substring(table["income_50k"], "+"),
        "label.married": pc.match_substring(table["marital_stat"], "Never married"),
    }
    for name, label in labels.items():
        table = table.append_column(name, label.cast(pa.float64()))
    return examples_from_table(table, declare_features(table), TASKS)


def declare_features(table: Any) -> FeatureSet:
    kinds = {name: "number" if name in NUMBERS else "category" for name in table.column_names}
    return FeatureSet(
        Feature(name, "user", kind, f"column.{name}")  # type: ignore[arg-type]
        for name, kind in kinds.items()
        if name not in EXCLUDED_COLUMNS and not name.startswith("label.")
    )


def split_examples(examples: Examples, seed: int) -> DataSplit:
    """A random fifth as the test set, and the rest."""
    order = np.random.default_rng(seed).permutation(len(examples))
    test_count = round(len(examples) * TEST_SHARE)
    return DataSplit(examples.take(np.sort(order[test_count:])), examples.take(np.sort(order[:test_count])))


def mask_labels(examples: Examples, share: float, seed: int) -> Examples:
    """The examples with a random share of each task's labels missing; rows without any label are dropped."""
    rng = np.random.default_rng(seed)
    labels = {task: np.where(rng.random(len(label)) < share, np.nan, label) for task, label in examples.labels.items()}
    labels = {task: label.astype(np.float32) for task, label in labels.items()}
    return examples.with_labels(labels).take(has_any_label(labels, len(examples)))
