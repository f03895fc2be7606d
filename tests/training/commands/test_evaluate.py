from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from contract.errors import BadConfig, BadData
from contract.settings.reading import Settings
from contract.settings.section import decode_section
from contract.settings.training import TrainingConfig
from tests.model.small import CATEGORY, CLICK, FEATURES, SHAPE
from tests.training.examples import make_examples
from training.analysis.evaluation_report import EvaluationReport
from training.commands.evaluate import run
from training.data.examples import Examples
from training.data.parquet import write_examples

TASKS = (CLICK, CATEGORY)
EXAMPLES = make_examples(500, 9).for_tasks(TASKS)


def run_evaluate(folder: Path, examples: Examples = EXAMPLES, **overrides: Any) -> int:
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
    return run(
        Namespace(**(words | {"methods": None, "without_erasures": True} | overrides)),
        cast(Settings, settings),
        FEATURES,
    )


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
    gains = actual.gains_over_single_task
    assert {gain.other for gain in gains} == {"single-task"}
    assert {(gain.task, gain.figure) for gain in gains} >= {("all", "score"), ("click", "auc")}
    assert actual.examples == len(EXAMPLES)


def test_the_pages_show_the_values_of_the_json(folder: Path) -> None:
    actual = msgspec.json.decode(
        (folder / "evaluation.json").read_bytes(), type=EvaluationReport, dec_hook=decode_section
    )
    markdown, page = (folder / "evaluation.md").read_text(), (folder / "evaluation.html").read_text()

    for name, method in actual.methods.items():
        assert method.score is not None
        assert f"| {name} | {method.score.mean:.4g} ± – |" in markdown
        assert f"<td>{name}</td><td>{method.score.mean:.4g}</td>" in page
    assert page.count("<svg") == len(TASKS)
    assert actual.data_sha256 in page


def test_markdown_tables_have_rows_of_equal_width(folder: Path) -> None:
    lines = (folder / "evaluation.md").read_text().splitlines()
    rulers = [n for n, line in enumerate(lines) if line.startswith("|---")]

    assert len(rulers) == 3 + len(TASKS)
    for ruler in rulers:
        assert lines[ruler - 1].count("|") == lines[ruler].count("|") == lines[ruler + 1].count("|")


def test_examples_without_a_learnable_task_raise_bad_data_and_write_no_page(tmp_path: Path) -> None:
    # given clicks with equal labels, and nothing else
    clicks = EXAMPLES.take(EXAMPLES.has_label(CLICK)).for_tasks([CLICK])
    clicks.labels["click"][:] = 1

    # when they are evaluated
    with pytest.raises(BadData, match=r"Some task should be learnable.*Found only one"):
        run_evaluate(tmp_path, clicks)

    # then no page is written
    assert not (tmp_path / "out").exists()


def test_invalid_arguments_are_all_listed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(BadConfig) as raised:
        run_evaluate(tmp_path, folds=1, seeds=0, epochs=0, settle_days=-1)

    assert len(raised.value.errors) == 5
