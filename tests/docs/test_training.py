"""docs/training.md describes the commands of `training` with their options, metrics and settings."""

import re

import numpy as np
import pytest

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage, strip_code_marks
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, RELEVANCE
from training.__main__ import parse_arguments
from training.analysis.baselines import METHODS, build_methods
from training.trainer.evaluation import GroundTruth, compute_metrics

PAGE = MarkdownPage(ROOT / "docs" / "training.md")
EVALUATE = "training evaluate"
INCREMENTAL_TRAINING = "Incremental training"
GATE = "Promotion gate"
INCREMENTAL_FIELDS = {"update_rate", "update_batch", "replay", "distillation", "row_after", "unused_days", "keep"}


def test_every_metric_of_evaluate_is_documented_and_no_other(seed: int) -> None:
    table = PAGE.tables(EVALUATE)[0]
    documented = {name for row in table for name in row["figure"].replace("`", "").split(", ")}

    rng, actual = np.random.default_rng(seed), {"rows"}
    ids = np.array([f"{n}" for n in range(200)], object)
    for task in (CLICK, FRAUD, RELEVANCE, CATEGORY, DEMAND):
        y = rng.integers(0, 2, 200)
        ts_ms = np.zeros(200, np.int64)
        p = rng.dirichlet(np.ones(2), 200) if task.kind == "multiclass" else rng.random(200)
        actual |= set(compute_metrics(task, GroundTruth(y, ids, ids, ts_ms + 1, ts_ms + 2), p))
    assert documented == actual


@pytest.mark.parametrize("words", [["evaluate", "examples.parquet"], ["compare"], ["offpolicy"]], ids=lambda w: w[0])
def test_every_option_is_documented_with_its_default(words: list[str]) -> None:
    options = PAGE.tables(f"training {words[0]}")[1]
    args = vars(parse_arguments(words))
    names = args.keys() - {"command", "data", "bundle", "run"}
    actual = {f"--{name.replace('_', '-')}": args[name] for name in names}

    documented = {strip_code_marks(row["option"]): strip_code_marks(row["default"]) for row in options}
    assert documented == {name: "" if value is None else str(value) for name, value in actual.items()}


def test_every_setting_of_incremental_training_is_documented_with_its_default() -> None:
    documented = {
        strip_code_marks(row["field of `[training]`"]): strip_code_marks(row["default"])
        for row in PAGE.tables(INCREMENTAL_TRAINING)[0]
    }

    assert documented == {name: str(getattr(TrainingConfig(), name)) for name in documented}
    assert {"update_rate", "update_batch", "replay", "distillation", "row_after", "unused_days", "keep"} == set(
        documented
    )


def test_every_setting_of_the_gate_is_documented_with_its_default() -> None:
    (table,) = (table for table in PAGE.tables(GATE) if "in `[training]`" in table[0])

    assert {"margin", "jump", "refusals_max"} <= {strip_code_marks(row["in `[training]`"]) for row in table}
    for row in table:
        assert strip_code_marks(row["default"]) == str(
            getattr(TrainingConfig(), strip_code_marks(row["in `[training]`"]))
        )


def test_every_reason_to_exclude_an_example_is_documented() -> None:
    (table,) = (table for table in PAGE.tables(GATE) if "reason" in table[0])
    documented = {name for row in table for name in row["reason"].replace("`", "").split(", ")}

    source = (ROOT / "training" / "online" / "example_filters.py").read_text()
    in_code = set(re.findall(r'^ +"([a-z ]+)": (?:lambda|[a-z_]+,)', source, re.MULTILINE))
    assert in_code
    assert documented == in_code | {"unreadable", "of other features", "without a label"}


def test_the_methods_of_evaluate_are_documented_and_exist() -> None:
    assert tuple(build_methods(ModelConfig(), TrainingConfig())) == METHODS
    assert all(f"`{name}`" in PAGE.text for name in METHODS)
