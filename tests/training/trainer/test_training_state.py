"""A course of learning that was cut short comes to the same end as one that was not."""

from pathlib import Path

import pytest

from contract.errors import BadConfig, BadData
from contract.settings import TrainingConfig
from model.checkpoint import hash_weights
from tests.model.small import SHAPE
from tests.training.examples import PLAN, make_examples
from training.trainer.fit import Epoch, FitOptions, FitResult, fit

DROPOUT_SHAPE = SHAPE.model_copy(update={"dropout": 0.2})
SHORT_CONFIG = PLAN.model_copy(update={"epochs": 3, "patience": 9})


class SimulatedCrash(Exception):
    """Stands for a process that ends."""


def fit_epochs(
    plan: TrainingConfig, state_path: Path | None, *, ends_after: int = 99, rows: int = 120
) -> tuple[FitResult, list[Epoch]]:
    epochs = list[Epoch]()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        if epoch.number == ends_after:
            raise SimulatedCrash

    return fit(make_examples(rows, 3), DROPOUT_SHAPE, plan, report, FitOptions(state_path)), epochs


@pytest.mark.parametrize(
    ("balance", "focus"), [("static", 0.0), ("uncertainty", 0.0), ("dwa", 0.0), ("pcgrad", 0.0), ("static", 2.0)]
)
def test_learning_that_was_cut_short_comes_to_the_same_weights(balance: str, focus: float, tmp_path: Path) -> None:
    plan, kept = SHORT_CONFIG.model_copy(update={"balance": balance, "focus": focus}), tmp_path / "course.pt"
    whole, epochs = fit_epochs(plan, None)

    with pytest.raises(SimulatedCrash):
        fit_epochs(plan, kept, ends_after=2)
    resumed, rest = fit_epochs(plan, kept)

    assert rest == epochs[2:]
    assert hash_weights(resumed.network.state_dict()) == hash_weights(whole.network.state_dict())
    assert (resumed.score, resumed.evaluation) == (whole.score, whole.evaluation)
    assert str(resumed.optimizer) == str(whole.optimizer)


def test_a_course_that_is_at_its_end_learns_no_more_and_may_be_given_more_epochs(tmp_path: Path) -> None:
    kept = tmp_path / "course.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), kept)

    assert fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), kept)[1] == []
    assert [epoch.number for epoch in fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 2}), kept)[1]] == [2]


@pytest.mark.parametrize("other", [{"plan": SHORT_CONFIG.model_copy(update={"seed": 8})}, {"rows": 121}])
def test_a_course_of_another_plan_or_other_examples_is_refused(other: dict[str, object], tmp_path: Path) -> None:
    kept = tmp_path / "course.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), kept)
    before = kept.read_bytes()

    with pytest.raises(BadData, match="should be a course of this network and plan on these examples"):
        fit_epochs(**{"plan": SHORT_CONFIG, "kept": kept, **other})  # type: ignore[arg-type]

    assert kept.read_bytes() == before


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_file_that_is_no_whole_course_is_told(cut: int, tmp_path: Path) -> None:
    kept = tmp_path / "course.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), kept)
    kept.write_bytes(kept.read_bytes()[:cut])

    with pytest.raises(BadData, match=r"course.pt should be a course of learning. Found"):
        fit_epochs(SHORT_CONFIG, kept)


def test_a_balance_that_remembers_more_than_numbers_is_told_before_anything_is_written(tmp_path: Path) -> None:
    plan, kept = SHORT_CONFIG.model_copy(update={"epochs": 1, "balance": "FAMO"}), tmp_path / "course.pt"

    with pytest.raises(BadConfig, match="`balance` should remember numbers alone"):
        fit_epochs(plan, kept)

    assert list(tmp_path.iterdir()) == []
