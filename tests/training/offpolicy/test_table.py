from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from training.offpolicy.table import read_logged_actions

COLUMNS: dict[str, Any] = {
    "reward": [1, 0, 0],
    "propensity": [0.5, 0.5, None],
    "target": [0.25, 0.5, 0.25],
    "action": ["a", "b", "a"],
    "position": [1, 1, 2],
    "unit": ["u1", "u2", "u1"],
    "context.device": ["phone", "desk", "phone"],
    "context.age_days": [1.5, 2.0, None],
}
CHOICES: dict[str, Any] = {
    "actions": [["a", "b"], ["a", "b"], ["a", "c"]],
    "targets": [[0.25, 0.75], [0.5, 0.5], [0.25, 0.75]],
    "propensities": [[0.5, 0.5], [0.5, 0.5], [0.5, None]],
}


def write(folder: Path, columns: dict[str, Any], name: str = "logs.parquet") -> Path:
    path = folder / name
    if name.endswith(".csv"):
        csv.write_csv(pa.table({key: list(map(str, values)) for key, values in columns.items()}), path)
    else:
        pq.write_table(pa.table(columns), path)
    return path


def test_a_table_gives_weights_units_and_a_context(tmp_path: Path) -> None:
    logs = read_logged_actions(write(tmp_path, COLUMNS), {})

    assert logs.weigh().weight.tolist() == [0.5, 1]
    assert logs.unit.tolist() == [0, 1, 0]
    assert logs.columns[:, 0].tolist() == [0, 0, 1]  # the position
    assert logs.columns[:, 1].tolist() == [0, 1, 0]  # the device, by frequency
    assert logs.columns[:2, 2].tolist() == [1.5, 2]
    assert np.isnan(logs.columns[2, 2])
    assert logs.categories == (0, 1)
    assert logs.choices is None


def test_all_probabilities_give_the_choices_and_the_share_that_the_logs_lack(tmp_path: Path) -> None:
    logs = read_logged_actions(write(tmp_path, COLUMNS | CHOICES), {})

    assert logs.choices is not None
    assert logs.choices.row.tolist() == [0, 0, 1, 1, 2, 2]
    assert logs.choices.measure_uncovered() == pytest.approx(0.75 / 3)
    assert logs.categories == (0, 1, 3)
    assert logs.columns[:, 3].tolist() == [0, 1, 0]


def test_choices_without_propensities_tell_no_share(tmp_path: Path) -> None:
    columns = COLUMNS | {name: CHOICES[name] for name in ("actions", "targets")}
    logs = read_logged_actions(write(tmp_path, columns), {})

    assert logs.choices is not None
    assert logs.choices.measure_uncovered() is None


def test_a_csv_file_and_other_names_are_read_alike(tmp_path: Path) -> None:
    columns = {
        "clicked": [1, 0],
        "p": [0.5, 0.5],
        "target": [0.25, 0.5],
        "action": ["a", "b"],
        "actions": ['["a", "b"]', '["a", "b"]'],
        "targets": ["[0.25, 0.75]", "[0.5, 0.5]"],
    }
    logs = read_logged_actions(write(tmp_path, columns, "logs.csv"), {"reward": "clicked", "propensity": "p"})

    assert logs.reward.tolist() == [1, 0]
    assert logs.weigh().weight.tolist() == [0.5, 1]
    assert logs.unit.tolist() == [0, 1]
    assert logs.choices is not None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"reward": [None, 0, 0]},
            "`reward` should hold finite numbers in every row. Found others in 1, first in row 0",
        ),
        ({"reward": ["x", "y", "z"]}, "`reward` should hold numbers"),
        ({"target": [0.5, 1.5, 0.5]}, "`target` should hold probabilities in every row"),
        (CHOICES | {"targets": [[0.25], [0.5, 0.5], [0.25, 0.75]]}, "as many values as actions"),
        (CHOICES | {"targets": [[0.25, 0.25], [0.5, 0.5], [0.25, 0.75]]}, "probabilities that sum to 1"),
        (CHOICES | {"targets": ["no list"] * 3}, "`targets` should hold lists"),
    ],
    ids=["null", "text", "probability", "length", "sum", "list"],
)
def test_a_wrong_value_is_refused_with_its_row(columns: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=reason):
        read_logged_actions(write(tmp_path, COLUMNS | columns), {})


def test_a_missing_column_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, {"reward": [1], "target": [0.5]})

    with pytest.raises(BadData, match="should have the columns propensity"):
        read_logged_actions(path, {})
    with pytest.raises(BadData, match="should have the columns p"):
        read_logged_actions(path, {"propensity": "p"})


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="Found no rows"):
        read_logged_actions(write(tmp_path, {"reward": [], "target": [], "propensity": []}), {})
