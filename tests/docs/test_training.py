"""docs/training.md says what `training evaluate` does."""

import re

import numpy as np
import pytest

from contract.settings import ModelConfig, TrainingConfig
from tests.checkout import ROOT
from tests.docs.pages import MarkdownPage, strip_code_marks
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, RELEVANCE
from training.__main__ import parse_arguments
from training.analysis.baselines import METHODS, build_methods
from training.trainer.evaluation import GroundTruth, compute_metrics

PAGE = MarkdownPage(ROOT / "docs" / "training.md")
HEADING = "What evaluate does"
ONLINE_LEARNING = "How the learner learns on"
COMPARE = "What compare shows"


def test_every_figure_stands_there_and_no_other(seed: int) -> None:
    figures = PAGE.tables(HEADING)[0]
    told = {name for row in figures for name in row["figure"].replace("`", "").split(", ")}

    rng, actual = np.random.default_rng(seed), {"rows"}
    ids = np.array([f"{at}" for at in range(200)], object)
    for task in (CLICK, FRAUD, RELEVANCE, CATEGORY, DEMAND):
        y, at = rng.integers(0, 2, 200), np.zeros(200, np.int64)
        p = rng.dirichlet(np.ones(2), 200) if task.kind == "multiclass" else rng.random(200)
        actual |= set(compute_metrics(task, GroundTruth(y, ids, ids, at + 1, at + 2), p))
    assert told == actual


@pytest.mark.parametrize(("heading", "words"), [(HEADING, ["evaluate", "examples.parquet"]), (COMPARE, ["compare"])])
def test_every_option_stands_there_with_its_default(heading: str, words: list[str]) -> None:
    options = PAGE.tables(heading)[1]
    args = vars(parse_arguments(words))
    names = args.keys() - {"command", "data", "run"}
    actual = {f"--{name.replace('_', '-')}": args[name] for name in names}

    told = {strip_code_marks(row["option"]): strip_code_marks(row["default"]) for row in options}
    assert told == {name: "" if value is None else str(value) for name, value in actual.items()}


def test_every_field_of_updates_stands_there_with_its_default() -> None:
    told = {
        strip_code_marks(row["field of `[training]`"]): strip_code_marks(row["default"])
        for row in PAGE.tables(ONLINE_LEARNING)[0]
    }

    fields = TrainingConfig().model_dump()
    assert told == {name: str(fields[name]) for name in told}
    assert {"update_rate", "update_batch", "replay", "distillation", "row_after", "unused_days", "keep"} == set(told)


def test_what_rules_an_update_stands_there_with_its_default() -> None:
    (table,) = (table for table in PAGE.tables("The gate") if "in `[training]`" in table[0])

    assert {"margin", "jump", "refusals_max"} <= {strip_code_marks(row["in `[training]`"]) for row in table}
    for row in table:
        assert strip_code_marks(row["default"]) == str(
            getattr(TrainingConfig(), strip_code_marks(row["in `[training]`"]))
        )


def test_every_reason_to_leave_an_example_out_stands_there() -> None:
    (table,) = (table for table in PAGE.tables("The gate") if "reason" in table[0])
    told = {name for row in table for name in row["reason"].replace("`", "").split(", ")}

    source = (ROOT / "training" / "online" / "example_filters.py").read_text()
    in_code = {*re.findall(r'"([a-z ]+)": (?:lambda|[a-z_]+[,\n])', source)}
    assert told == in_code | {"unreadable", "of other features", "without a label"}


def test_the_methods_that_can_be_named_are_those_that_there_are() -> None:
    assert tuple(build_methods(ModelConfig(), TrainingConfig())) == METHODS
    assert all(f"`{name}`" in PAGE.text for name in METHODS)
