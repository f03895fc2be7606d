from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadConfig
from contract.settings.reading import Settings
from contract.units import DAY_MS
from tests.model.small import CATEGORY, CLICK, FEATURES, FRAUD
from tests.training.examples import make_examples
from training.analysis.data_profile import ColumnSummary, DatasetSummary, summarize_examples
from training.commands.describe import run
from training.data.examples import Examples
from training.data.parquet import read_examples, write_examples

TASKS = (CLICK, FRAUD, CATEGORY)
LATE_MS = 3 * DAY_MS


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orders with devices equal to amount and a constant payment, and users with an outlier and an infinite number."""
    examples = make_examples(400, 11, prefix="d").for_tasks(TASKS)
    order, user = examples.blocks["order"], examples.blocks["user"]
    is_order = examples.has_label(FRAUD)
    order.numbers[is_order, 1] = order.numbers[is_order, 0]
    order.ids[is_order] = 77
    user.numbers[:, 1] = np.where(np.isnan(user.numbers[:, 1]), np.nan, 5)
    user.numbers[np.flatnonzero(examples.has_label(CLICK))[:2], 1] = [1e9, np.inf]
    examples.known_ms["fraud"][is_order] = examples.ts_ms[is_order] + LATE_MS
    path = tmp_path_factory.mktemp("described") / "made.parquet"
    write_examples(path, without_fraud(examples))
    return path


def without_fraud(examples: Examples) -> Examples:
    """The examples with every fraud label set to 0."""
    label = np.where(examples.has_label(FRAUD), 0, np.nan).astype(np.float32)
    return replace(examples, labels={**examples.labels, "fraud": label})


def run_describe(data: Path, out: Path) -> int:
    settings = cast(Settings, SimpleNamespace(tasks=TASKS))
    return run(Namespace(data=data, out=out, without_erasures=True, write=None), settings, FEATURES)


@pytest.fixture(scope="module")
def summary(data: Path) -> DatasetSummary:
    assert run_describe(data, data.parent / "out") == 0
    return msgspec.json.decode((data.parent / "out" / "description.json").read_bytes(), type=DatasetSummary)


def find_column(summary: DatasetSummary, name: str) -> ColumnSummary:
    return next(column for column in summary.columns if column.name == name)


def test_a_feature_is_measured_on_rows_with_its_group(summary: DatasetSummary) -> None:
    assert find_column(summary, "amount").rows == next(label.rows for label in summary.labels if label.task == "fraud")
    assert find_column(summary, "query").oddities == ["no rows"]


def test_equal_constant_and_infinite_columns_are_reported(summary: DatasetSummary) -> None:
    assert find_column(summary, "devices").same_as == "amount"
    assert find_column(summary, "amount").same_as is None
    assert "constant" in find_column(summary, "payment").oddities
    assert find_column(summary, "spent").infinite == 1
    assert any("devices" in sentence and "same as amount" in sentence for sentence in summary.odd)


def test_missing_values_and_outliers_are_shares_of_the_rows(summary: DatasetSummary, data: Path) -> None:
    spent, clicks = find_column(summary, "spent"), find_column(summary, "clicks")

    assert 0.02 < clicks.missing < 0.25  # a tenth is drawn as missing
    assert spent.high == 1e9
    assert spent.clip_high is not None
    assert spent.outliers is not None
    assert sum(spent.bars) + round(spent.outliers * spent.rows) == round(spent.rows * (1 - spent.missing)) - 1


def test_a_constant_label_and_the_delay_of_labels_are_reported(summary: DatasetSummary) -> None:
    fraud = next(label for label in summary.labels if label.task == "fraud")

    assert fraud.constant
    assert fraud.known_after_s == LATE_MS / 1_000
    assert sum(rows for rows, _ in fraud.days.values()) == fraud.rows
    assert "Task `fraud`: only one value." in summary.odd


def test_the_page_has_a_row_for_each_feature_and_a_picture_for_each_group(summary: DatasetSummary, data: Path) -> None:
    page = (data.parent / "out" / "description.html").read_text()

    assert all(f"<td>{feature.name}</td>" in page for feature in FEATURES.features)
    assert page.count("<svg") == len({feature.group for feature in FEATURES.features}) + 1


def test_the_table_lists_every_feature_with_its_oddities(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.commands.describe.render_pages", lambda _: {})

    assert run_describe(data, tmp_path / "out") == 0

    lines = capsys.readouterr().err.splitlines()
    assert all(any(feature.name in line for line in lines) for feature in FEATURES.features)
    assert any("devices" in line and "same as amount" in line for line in lines)


def test_older_revisions_are_counted_as_left_out(data: Path, tmp_path: Path) -> None:
    # given a file with ten examples twice
    table = pq.read_table(data)
    pq.write_table(pa.concat_tables([table, table.slice(0, 10)]), tmp_path / "twice.parquet")

    # when it is described
    actual = summarize_examples(tmp_path / "twice.parquet", read_examples(tmp_path / "twice.parquet", FEATURES, TASKS))

    # then each example counts once
    assert (actual.file_rows, actual.examples) == (len(table) + 10, len(table))


def test_a_file_in_place_of_the_output_folder_is_rejected(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")

    with pytest.raises(BadConfig, match="should be a folder"):
        run_describe(data, tmp_path / "out")
