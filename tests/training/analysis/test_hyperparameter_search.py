"""Hyper-parameter search starts from the declared configuration, resumes, and reports the best one."""

import json
import tomllib
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from contract.errors import BadConfig
from contract.settings.model import ModelConfig
from contract.settings.reading import Settings
from contract.settings.training import TrainingConfig
from tests.model.small import FEATURES, SHAPE
from tests.training.examples import PLAN, make_examples
from training.analysis.hyperparameter_search import SPACE, HyperparameterSearch, TrialResult
from training.commands.search import run
from training.data.parquet import write_examples
from training.trainer.fit import FitOptions, fit
from training.trainer.size_defaults import adapt_configs

EXAMPLES = make_examples(300, 3)
SEARCHED = ("hidden", "learning_rate", "dropout")
SHORT_CONFIG = PLAN.model_copy(update={"epochs": 2})


def make_search(journal: Path | None = None) -> HyperparameterSearch:
    return HyperparameterSearch(
        examples=EXAMPLES, model_config=SHAPE, config=SHORT_CONFIG, names=SEARCHED, journal_path=journal
    )


def test_the_first_trial_is_the_declared_configuration_and_the_best_is_reproducible() -> None:
    reported = list[TrialResult]()

    actual = make_search().run(4, reported.append)

    assert reported == actual.trials
    assert reported[0].values == {"hidden": SHAPE.hidden, "learning_rate": PLAN.learning_rate, "dropout": SHAPE.dropout}
    assert actual.declared == reported[0].score == fit(EXAMPLES, SHAPE, SHORT_CONFIG, lambda epoch: None).score
    assert actual.score == max(trial.score for trial in reported if trial.score is not None) >= actual.declared
    assert fit(EXAMPLES, actual.model_config, actual.config, lambda epoch: None, FitOptions()).score == actual.score


def test_a_search_resumes_from_its_journal(tmp_path: Path) -> None:
    journal, new_trials = tmp_path / "trials.log", list[TrialResult]()
    before = make_search(journal).run(2, lambda trial: None)

    actual = make_search(journal).run(4, new_trials.append)

    assert actual.trials[:2] == before.trials
    assert [trial.number for trial in new_trials] == [3, 4]
    assert make_search(journal).run(4, new_trials.append).trials == actual.trials


def test_declared_values_outside_the_space_are_tried() -> None:
    search = HyperparameterSearch(
        examples=EXAMPLES,
        model_config=SHAPE.model_copy(update={"hidden": 24, "experts": 1}),
        config=SHORT_CONFIG.model_copy(update={"learning_rate": 0.05}),
        names=("hidden", "experts", "learning_rate"),
    )

    actual = search.run(1, lambda trial: None)

    assert actual.trials[0].values == {"hidden": 24, "experts": 1, "learning_rate": 0.05}


def test_every_name_of_the_space_is_a_setting() -> None:
    assert set(SPACE) <= {*ModelConfig.model_fields, *TrainingConfig.model_fields}


def run_search_command(folder: Path, **overrides: object) -> int:
    write_examples(folder / "made.parquet", EXAMPLES)
    training = TrainingConfig(batch=64, epochs=1)
    settings = SimpleNamespace(tasks=EXAMPLES.tasks, model=SHAPE, training=training)
    words = {"data": [folder / "made.parquet"], "trials": 2, "over": ["tower"], "epochs": None, "kept": None}
    args = Namespace(**words | {"out": folder / "best.toml", "without_erasures": True} | overrides)
    return run(args, cast(Settings, settings), FEATURES)


def test_the_best_configuration_is_written_as_settings_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_search_command(tmp_path) == 0

    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    tables = tomllib.loads((tmp_path / "best.toml").read_text())
    shape, _ = adapt_configs(SHAPE, PLAN, rows=1)
    assert ModelConfig.model_validate(tables["model"]) == shape.model_copy(update={"tower": printed["values"]["tower"]})
    assert TrainingConfig.model_validate(tables["training"]).batch == 64
    assert printed["trials"] == 2


def test_a_name_outside_the_space_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"`--over` should name some of architecture, .* Found wings"):
        run_search_command(tmp_path, over=["wings"])
