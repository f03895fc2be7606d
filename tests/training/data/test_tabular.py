"""Plain tables as examples: columns become features, and training works as usual."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from contract.events.labels import LabelReader
from contract.features.columns import encode_text
from contract.features.declaration import Feature, FeatureSet
from contract.hashing import hash_id
from contract.tasks import Task
from export.__main__ import main as export_main
from training.__main__ import main
from training.data.examples import NO_PLACE
from training.data.parquet import read_examples, to_parquet
from training.data.streaming import ExampleStream
from training.data.tabular import examples_from_table
from training.erasure.arguments import OPTION

FEATURES = FeatureSet(
    [
        Feature("age", "user", "number", "column.years"),
        Feature("job", "user", "category", "column.job"),
        Feature("words", "user", "text", "column.words"),
        Feature("seen", "user", "sequence", "column.seen"),
        Feature("face", "user", "vector", "column.face", size=2),
        Feature("half", "user", "number", "column.half"),
        Feature("amount", "order", "number", "event.amount"),
    ]
)
TASKS = (Task("good", "binary", ("user",), "decide"), Task("kind", "multiclass", ("user",), "decide"))


def make_table(**changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "years": [30, None, 50],
        "job": ["cook", None, "vet"],
        "words": ["a cat", "", None],
        "seen": [["x", "y"], [], None],
        "face": [[1.0, 2.0], None, [3.0, 4.0]],
        "half": [True, False, None],
        "label.good": [1, 0, None],
        "label.kind": [None, "b", "a"],
    }
    return pa.table({name: value for name, value in (columns | changes).items() if value is not None})


def test_a_column_named_place_is_the_shops_own_and_no_place_on_a_list() -> None:
    for places in (["Ulm", None, "Bonn"], [1, 2, 3]):
        assert examples_from_table(make_table(place=places), FEATURES, TASKS).place.tolist() == [NO_PLACE] * 3


def test_ids_and_times_of_a_table_are_those_of_events_whatever_their_type() -> None:
    times = pa.array([7, None, 5], pa.timestamp("ms"))
    actual = examples_from_table(
        make_table(ts_ms=times, user_id=[12345.0, None, 3.0], **{"label.good": [1, 1, 0]}), FEATURES, TASKS
    )
    assert list(zip(actual.ts_ms.tolist(), actual.user_id.tolist(), strict=True)) == [(0, ""), (5, "3"), (7, "12345")]


def test_each_column_becomes_its_declared_feature() -> None:
    actual = examples_from_table(make_table(), FEATURES, TASKS)

    block = actual.blocks["user"]
    nan = np.nan
    np.testing.assert_array_equal(block.numbers, [[30, 1, 1, 2], [nan, 0, nan, nan], [50, nan, 3, 4]])
    job, words, seen = (slice(span.start, span.start + span.width) for span in FEATURES.spans("user"))
    assert block.ids[:, job].tolist() == [[hash_id("job=cook")], [0], [hash_id("job=vet")]]
    assert [tuple(row) for row in block.ids[:, words].tolist()] == [
        encode_text("a cat"),
        encode_text(""),
        encode_text(""),
    ]
    assert block.ids[0, seen].tolist()[:3] == [hash_id("seen=x"), hash_id("seen=y"), 0]
    assert not block.ids[1:, seen].any()
    assert np.isnan(actual.blocks["order"].numbers).all()
    assert actual.labels["kind"].tolist() == [-1, 1, 0]
    assert actual.ts_ms.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"years": None}, "should have a column `years`"),
        ({"label.good": None}, "should have a column `label.good`"),
        ({"years": ["thirty", "40", "50"]}, "`years` should hold numbers"),
        ({"face": [[1.0], None, [3.0, 4.0]]}, "`face` should hold lists of 2 numbers"),
        ({"seen": ["x", "y", "z"]}, "`seen` should hold lists"),
        ({"label.good": [1, 2, 0]}, "should be 0 or 1, .* Found 2"),
        ({"label.good": ["1", "perhaps", "0"]}, "should be 0 or 1, .* Found 'perhaps'"),
        ({"label.good": [b"1", None, None]}, "should be 0 or 1, .* Found b'1'"),
    ],
)
def test_a_table_that_does_not_fit_the_features_is_rejected(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadData, match=sentence):
        examples_from_table(make_table(**changes), FEATURES, TASKS)


def test_labels_of_a_table_are_read_as_those_of_events() -> None:
    reader, words = LabelReader(TASKS), ["1", "0", "true", "False", "not_good", "no", "Good", "1.0"]
    table = pa.table({"years": [30] * 8, "label.good": words, "label.kind": range(8)})
    tasks, features = TASKS, FeatureSet([feature for feature in FEATURES.features if feature.name == "years"])

    examples = examples_from_table(table, features, tasks)

    by_row = np.argsort(examples.example_id)
    assert examples.labels["good"][by_row].tolist() == [reader.read("good", word)[1] for word in words]
    assert examples.classes["kind"] == tuple("01234567")


def test_a_stream_knows_the_labels_of_a_text_column_as_they_are_read(tmp_path: Path) -> None:
    pq.write_table(make_table(**{"label.good": ["1", "no", "yes"]}), tmp_path / "t.parquet")

    stream = ExampleStream(paths=[tmp_path / "t.parquet"], features=FEATURES, tasks=TASKS)

    assert stream.distinct_labels == {"good": {0.0, 1.0}, "kind": {"a", "b"}}


def test_examples_of_a_table_survive_a_parquet_file(tmp_path: Path) -> None:
    examples = examples_from_table(make_table(), FEATURES, TASKS)

    actual = read_examples(to_parquet(examples), FEATURES, TASKS)

    for group, block in examples.blocks.items():
        np.testing.assert_array_equal(actual.blocks[group].numbers, block.numbers)
        np.testing.assert_array_equal(actual.blocks[group].ids, block.ids)


def test_a_plain_table_is_trained_and_exported_by_the_same_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    years, job = rng.integers(18, 80, 600), rng.choice(["cook", "vet", "clerk"], 600)
    rich = (years > 50) | (job == "vet")
    pq.write_table(pa.table({"years": years, "job": job, "label.rich": rich.astype(float)}), tmp_path / "t.parquet")
    (tmp_path / "f.toml").write_text(
        "".join(
            f'[[features]]\nname = "{name}"\ngroup = "user"\nkind = "{kind}"\nsource = "column.{name}"\n'
            for name, kind in (("years", "number"), ("job", "category"))
        )
    )
    (tmp_path / "shop.toml").write_text(
        f'features = "{tmp_path / "f.toml"}"\nbundles = "{tmp_path / "bundles"}"\n'
        '[[tasks]]\nname = "rich"\nkind = "binary"\ngroups = ["user"]\ngraph = "decide"\n'
        '[model]\narchitecture = "ple"\nbins = 8\nmembers = 2\n[training]\nbatch = 64\nepochs = 8\n'
    )
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))

    assert main(["fit", OPTION, str(tmp_path / "t.parquet")]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert export_main(["--latest"]) == 0
    assert "Found columns of a table: years, job. Workers refuse it;" in capsys.readouterr().err
    assert export_main(["verify"]) == 1
    assert "Found columns of a table: years, job." in capsys.readouterr().err

    assert printed["evaluation"]["rich"]["auc"] > 0.95
