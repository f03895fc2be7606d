"""Search: it begins with what is declared, goes on from what it kept, and says what was best."""

import json
import tomllib
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from contract.errors import BadConfig
from contract.settings import ModelConfig, Settings, TrainingConfig
from tests.model.small import FEATURES, SHAPE
from tests.training.examples import PLAN, make_examples
from training.analysis.hyperparameter_search import SPACE, HyperparameterSearch, TrialResult
from training.commands.search import run
from training.data.parquet import write_examples
from training.trainer.fit import FitOptions, fit

EXAMPLES = make_examples(300, 3)
SEARCHED = ("hidden", "learning_rate", "dropout")
SHORT_CONFIG = PLAN.model_copy(update={"epochs": 2})


def run_search(storage: Path | None = None) -> HyperparameterSearch:
    return HyperparameterSearch(examples=EXAMPLES, shape=SHAPE, plan=SHORT_CONFIG, names=SEARCHED, journal_path=storage)


def test_the_first_trial_is_what_is_declared_and_the_best_is_what_its_values_give() -> None:
    told = list[TrialResult]()

    actual = run_search().run(4, told.append)

    assert told == actual.trials
    assert told[0].values == {"hidden": SHAPE.hidden, "learning_rate": PLAN.learning_rate, "dropout": SHAPE.dropout}
    assert actual.declared == told[0].score == fit(EXAMPLES, SHAPE, SHORT_CONFIG, lambda epoch: None).score
    assert actual.score == max(one.score for one in told if one.score is not None) >= actual.declared
    assert fit(EXAMPLES, actual.shape, actual.plan, lambda epoch: None, FitOptions()).score == actual.score


def test_a_search_goes_on_from_the_trials_it_kept(tmp_path: Path) -> None:
    kept, rest = tmp_path / "trials.log", list[TrialResult]()
    before = run_search(kept).run(2, lambda one: None)

    actual = run_search(kept).run(4, rest.append)

    assert actual.trials[:2] == before.trials
    assert [one.number for one in rest] == [3, 4]
    assert run_search(kept).run(4, rest.append).trials == actual.trials


def test_values_that_are_declared_beyond_the_space_are_tried_all_the_same() -> None:
    shape, plan = (
        SHAPE.model_copy(update={"hidden": 24, "experts": 1}),
        SHORT_CONFIG.model_copy(update={"learning_rate": 0.05}),
    )

    actual = HyperparameterSearch(
        examples=EXAMPLES, shape=shape, plan=plan, names=("hidden", "experts", "learning_rate")
    ).run(1, lambda one: None)

    assert actual.trials[0].values == {"hidden": 24, "experts": 1, "learning_rate": 0.05}


def test_every_name_of_the_space_is_one_of_the_settings() -> None:
    assert set(SPACE) <= {*ModelConfig.model_fields, *TrainingConfig.model_fields}


def run_search_command(folder: Path, **given: object) -> int:
    write_examples(folder / "made.parquet", EXAMPLES)
    training = TrainingConfig(batch=64, epochs=1)
    settings = SimpleNamespace(tasks=EXAMPLES.tasks, model=SHAPE, training=training)
    words = {"data": [folder / "made.parquet"], "trials": 2, "over": ["tower"], "epochs": None, "kept": None}
    args = Namespace(**words | {"out": folder / "best.toml"} | given)
    return run(args, cast(Settings, settings), FEATURES)


def test_the_best_is_written_as_tables_that_the_settings_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_search_command(tmp_path) == 0

    said, tables = (
        json.loads(capsys.readouterr().out.splitlines()[-1]),
        tomllib.loads((tmp_path / "best.toml").read_text()),
    )
    assert ModelConfig.model_validate(tables["model"]) == SHAPE.model_copy(update={"tower": said["values"]["tower"]})
    assert TrainingConfig.model_validate(tables["training"]).batch == 64
    assert said["trials"] == 2


def test_a_name_that_is_no_setting_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"`--over` should name some of architecture, .* Found wings"):
        run_search_command(tmp_path, over=["wings"])
