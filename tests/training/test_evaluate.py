import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from contract.errors import BadConfig, BadData
from contract.settings import Settings, TrainingConfig, decode_section
from tests.model.small import CATEGORY, CLICK, DEMAND, FEATURES, SHAPE
from tests.training.examples import make_examples
from training.analysis.evaluation_report import EvaluationReport
from training.commands.evaluate import run
from training.data import parquet
from training.data.examples import Examples
from training.data.parquet import write_examples
from training.report.pages import write_pages
from training.report.plots import plot_curves

TASKS = (CLICK, CATEGORY)
MADE = make_examples(500, 9).for_tasks(TASKS)


def run_evaluate(folder: Path, examples: Examples = MADE, **given: Any) -> int:
    write_examples(folder / "made.parquet", examples)
    settings = SimpleNamespace(
        tasks=examples.tasks, model=SHAPE, training=TrainingConfig(batch=64, epochs=1), bundles=folder
    )
    words = {
        "data": folder / "made.parquet",
        "out": folder / "out",
        "folds": 2,
        "seeds": 1,
        "epochs": None,
        "settle_days": 0,
    }
    return run(Namespace(**(words | {"methods": None} | given)), cast(Settings, settings), FEATURES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    assert run_evaluate(folder) == 0
    return folder / "out"


def test_every_run_of_every_method_is_in_the_json(folder: Path) -> None:
    actual = msgspec.json.decode(
        (folder / "evaluation.json").read_bytes(), type=EvaluationReport, dec_hook=decode_section
    )

    assert [(run.method, run.fold) for run in actual.runs] == [
        (method, fold) for fold in (1, 2) for method in ("ours", "single-task", "LightGBM")
    ]
    assert {one.other for one in actual.gains_over_single_task} == {"single-task"}
    assert {(one.task, one.figure) for one in actual.gains_over_single_task} >= {("all", "score"), ("click", "auc")}
    assert actual.examples == len(MADE)


def test_the_pages_show_what_the_json_says(folder: Path) -> None:
    actual = msgspec.json.decode(
        (folder / "evaluation.json").read_bytes(), type=EvaluationReport, dec_hook=decode_section
    )
    markdown, page = (folder / "evaluation.md").read_text(), (folder / "evaluation.html").read_text()

    for name, of in actual.methods.items():
        assert of.score is not None
        assert f"| {name} | {of.score.mean:.4g} ± – |" in markdown
        assert f"<td>{name}</td><td>{of.score.mean:.4g}</td>" in page
    assert page.count("<svg") == len(TASKS)
    assert actual.data_sha256 in page


def test_markdown_tables_are_whole(folder: Path) -> None:
    lines = (folder / "evaluation.md").read_text().splitlines()
    tables = [n for n, line in enumerate(lines) if line.startswith("|---")]

    assert len(tables) == 3 + len(TASKS)
    for at in tables:
        assert lines[at - 1].count("|") == lines[at].count("|") == lines[at + 1].count("|")


def test_a_full_disk_ends_with_a_sentence_and_leaves_the_former_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a report, and a disk on which only half of the next one fits
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text("former")

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    # When pages are written
    monkeypatch.setattr(parquet, "write_durably", full)
    with pytest.raises(BadData, match=r"should be a folder that takes reports.*No space"):
        write_pages(tmp_path / "out", {"evaluation.json": b"new", "evaluation.md": b"new"})

    # Then the former report stands, and nothing half-written beside it
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]
    assert (tmp_path / "out" / "evaluation.json").read_text() == "former"


def test_examples_that_can_teach_nothing_end_with_a_sentence_and_no_page(tmp_path: Path) -> None:
    # Given clicks that all say the same, and nothing else
    clicks = MADE.take(MADE.has_label(CLICK)).for_tasks([CLICK])
    clicks.labels["click"][:] = 1

    # When they are evaluated
    with pytest.raises(BadData, match=r"Some task should be learnable.*Found one alone"):
        run_evaluate(tmp_path, clicks)

    # Then no page says anything
    assert not (tmp_path / "out").exists()


def test_arguments_that_compare_nothing_are_all_listed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(BadConfig) as found:
        run_evaluate(tmp_path, folds=1, seeds=0, epochs=0, settle_days=-1)

    assert len(found.value.errors) == 5


@pytest.mark.parametrize("task", [CLICK, CATEGORY, DEMAND], ids=lambda task: task.kind)
def test_curves_are_one_well_formed_picture_and_the_same_each_time(task: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 200)
    p = rng.dirichlet(np.ones(2), 200) if task.kind == "multiclass" else rng.random(200)

    first, second = (plot_curves(task, y, {"<ours> & co": p}, ("a", "b")) for _ in range(2))

    assert first == second
    ElementTree.fromstring(first)
    assert json.dumps(first)
