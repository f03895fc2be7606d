"""`training score`: the scores of a file are those of the network, whatever its size and format."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from export.exporter import export
from model.checkpoint import Checkpoint, make_metadata
from model.network import Network
from tests.model.small import SHAPE
from training.__main__ import main
from training.data.tabular import examples_from_table
from training.scoring import table_reader
from training.trainer.fit import build_network
from training.trainer.learner import predict

FEATURES = FeatureSet(
    [
        Feature("years", "user", "number", "column.years"),
        Feature("job", "user", "category", "column.job"),
        Feature("notes", "item", "text", "column.notes"),
        Feature("seen", "user", "sequence", "column.seen"),
        Feature("face", "user", "vector", "column.face", size=2),
    ]
)
TASKS = (
    Task("good", "binary", ("user",), "decide"),
    Task("spend", "regression", ("user",), "decide"),
    Task("click", "binary", ("user", "item"), "recommend"),
    Task("sort", "multiclass", ("item",), "classify"),
)
ROWS = 300


def make_table() -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "years": [None if n % 9 == 0 else float(years) for n, years in enumerate(rng.integers(18, 80, ROWS))],
            "job": rng.choice(["cook", "vet", "clerk"], ROWS),
            "notes": rng.choice(["a cat", "two dogs", ""], ROWS),
            "seen": [["x"] if n % 2 else ["y", "z"] for n in range(ROWS)],
            "face": [[float(n), 1.0] for n in range(ROWS)],
            "user_id": [f"u{n}" for n in range(ROWS)],
            "ts_ms": np.arange(ROWS) + 1,
            "label.good": rng.integers(0, 2, ROWS).astype(float),
            "label.spend": rng.lognormal(0, 1, ROWS),
            "label.click": rng.integers(0, 2, ROWS).astype(float),
            "label.sort": rng.choice(["p", "q", "r"], ROWS),
        }
    )


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(examples_from_table(make_table(), FEATURES, TASKS), SHAPE).eval()


@pytest.fixture
def folder(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the settings and a bundle of the network."""
    metadata = make_metadata(network, parent=None, created_ms=10**12, evaluation={}, positions={})
    export(Checkpoint(metadata=metadata, weights=network.state_dict()), tmp_path / "bundles", {})
    lines = [
        f'[[features]]\nname = "{f.name}"\ngroup = "{f.group}"\nkind = "{f.kind}"\nsource = "{f.source}"\n'
        + (f"size = {f.size}\n" if f.kind == "vector" else "")
        for f in FEATURES.features
    ]
    (tmp_path / "features.toml").write_text("".join(lines))
    (tmp_path / "shop.toml").write_text(
        f'features = "{tmp_path / "features.toml"}"\nbundles = "{tmp_path / "bundles"}"\n'
        '[[tasks]]\nname = "good"\nkind = "binary"\ngroups = ["user"]\ngraph = "decide"\n'
    )
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))
    return tmp_path


def score(path: Path, *words: str) -> int:
    return main(["score", "current", str(path), *words])


def write_csv(path: Path, table: pa.Table) -> None:
    """A CSV file with lists as JSON."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        values = table.column(name)
        is_list = pa.types.is_list(values.type)
        columns[name] = [json.dumps(value) for value in values.to_pylist()] if is_list else values
    csv.write_csv(pa.table(columns), path)


@pytest.mark.parametrize("name", ["table.parquet", "table.csv", "table.csv.gz"])
def test_the_scores_of_a_file_are_those_of_the_network(
    network: Network, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, path = make_table(), folder / name
    monkeypatch.setattr(table_reader, "BATCH_ROWS", 64)
    if name == "table.parquet":
        pq.write_table(table, path)
    else:
        write_csv(folder / "table.csv", table)
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress((folder / "table.csv").read_bytes()))

    assert score(path) == 0

    printed = json.loads(capsys.readouterr().out)
    expected = predict(network, examples_from_table(table, FEATURES, TASKS))
    out = Path(printed["out"])
    scores = pq.read_table(out) if out.suffix == ".parquet" else csv.read_csv(out)
    assert printed["rows"] == ROWS
    assert printed["missing"] == []
    assert printed["unreadable"] == {}
    assert scores.column("user_id").to_pylist() == table.column("user_id").to_pylist()
    for task in ("good", "spend", "click"):
        np.testing.assert_allclose(scores.column(task).to_numpy(), expected[task], atol=1e-5, rtol=1e-5)
    assert scores.column("sort").to_pylist() == [("p", "q", "r")[n] for n in expected["sort"].argmax(1)]
    np.testing.assert_allclose(scores.column("sort.probability").to_numpy(), expected["sort"].max(1), atol=1e-5)


def test_missing_columns_and_values_of_another_type_are_said_and_scored_as_unknown(
    network: Network, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = make_table()
    years: list[Any] = [str(value) for value in table.column("years").to_pylist()]
    years[:3] = ["thirty", "n/a", None]
    face: list[Any] = [[1.0, 2.0, 3.0], *table.column("face").to_pylist()[1:]]
    table = table.drop_columns(["job", "user_id", "ts_ms"]).set_column(0, "years", pa.array(years))
    table = table.set_column(table.column_names.index("face"), "face", pa.array(face))
    pq.write_table(table, folder / "odd.parquet")

    assert score(folder / "odd.parquet", "--out", str(folder / "odd.csv")) == 0

    out, messages = capsys.readouterr()
    printed = json.loads(out)
    unknown_years = sum(value == "None" for value in years[3:])
    assert printed["missing"] == ["job"]
    assert printed["unreadable"] == {"years": 2 + unknown_years, "face": 1}
    assert "Found no `job`: unknown in all rows" in messages
    scores = csv.read_csv(folder / "odd.csv")
    assert scores.column("row").to_pylist() == list(range(ROWS))
    assert np.isfinite(scores.column("good").to_numpy()).all()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no table", "should be Parquet or CSV"),
        (None, "should have columns of"),
    ],
)
def test_a_file_without_any_known_column_is_refused_and_no_output_appears(
    folder: Path, content: bytes | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "other.parquet"
    if content is None:
        pq.write_table(pa.table({"height": [1, 2]}), path)
    else:
        path.write_bytes(content)

    assert score(path) == 1

    assert sentence in capsys.readouterr().err
    assert list(folder.glob("*scores*")) + list(folder.glob(".*")) == []


def test_an_output_that_is_the_data_itself_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(make_table(), folder / "table.parquet")

    assert score(folder / "table.parquet", "--out", str(folder / "table.parquet")) == 2

    assert "another file than the data" in capsys.readouterr().err


def test_an_unreadable_file_raises_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="should be Parquet or CSV"):
        list(table_reader.iterate_tables(tmp_path / "nothing.parquet"))
