"""Features that say nothing are dropped from the file, and nothing that others need."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.features.declaration import Feature, FeatureSet
from contract.features.reading import read_features
from contract.settings.reading import Settings
from contract.settings.worker import Rule
from training.__main__ import main
from training.analysis.data_profile import ColumnSummary
from training.analysis.feature_pruning import drop_tables, select_features
from training.erasure.arguments import OPTION

SETTINGS = """
features = "{folder}/features.toml"
bundles = "{folder}/bundles"
[[tasks]]
name = "good"
kind = "binary"
groups = ["user"]
graph = "decide"
hide = ["hidden"]
"""
NAMES = ("useful", "constant", "copy", "missing", "hidden", "operand")


def declare(name: str, source: str = "", group: str = "user") -> str:
    source = source or f"column.{name}"
    return f'[[features]]\nname = "{name}"\ngroup = "{group}"\nkind = "number"\nsource = "{source}"\n\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(1)
    useful = rng.random(200)
    table = {"useful": useful, "constant": np.ones(200), "copy": useful, "missing": [None] * 200}
    table |= {"hidden": np.ones(200), "operand": np.ones(200), "label.good": (useful > 0.5).astype(float)}
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    tables = [declare(name) for name in NAMES]
    tables[1] += "# what follows is a comment on the next feature\n"
    tables += [declare("share", "ratio useful / operand"), declare("title_length", "column.missing", group="item")]
    (tmp_path / "features.toml").write_text("# the features of a shop\n\n" + "".join(tables))
    (tmp_path / "shop.toml").write_text(SETTINGS.format(folder=tmp_path))
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))
    return tmp_path


def test_describe_writes_the_features_without_those_that_say_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned = folder / "pruned.toml"
    command = ["describe", OPTION, str(folder / "table.parquet"), "--out", str(folder / "r"), "--write", str(pruned)]

    assert main(command) == 0

    kept = [feature.name for feature in read_features(pruned).features]
    assert kept == ["useful", "hidden", "title_length"]
    assert '"dropped": ["constant", "copy", "missing", "operand", "share"]' in capsys.readouterr().out
    text = pruned.read_text()
    assert text.startswith("# the features of a shop\n")
    assert "# what follows is a comment on the next feature\n" in text


def test_a_file_of_which_nothing_is_dropped_stays_as_it_is(folder: Path) -> None:
    text = (folder / "features.toml").read_text()

    assert drop_tables(text, []) == text


def test_what_rules_and_kept_ratios_name_stays() -> None:
    features = FeatureSet(
        [
            Feature("a", "user", "number", "profile.user.clicks.count_1d"),
            Feature("b", "user", "number", "profile.user.clicks.count_1h"),
            Feature("ruled", "user", "number", "profile.user.orders.count_1d"),
            Feature("share", "user", "number", "ratio a / b"),
        ]
    )
    columns = [
        ColumnSummary(group="user", name=name, kind="number", rows=9, missing=0.0, distinct=distinct)
        for name, distinct in (("a", 1), ("b", 1), ("ruled", 1), ("share", 2))
    ]
    settings = Settings(rules=(Rule(feature="ruled", above=1, action="review", reason="many"),))

    assert select_features(features, columns, settings) == []
    assert select_features(features, columns[:3], Settings()) == ["ruled"]
