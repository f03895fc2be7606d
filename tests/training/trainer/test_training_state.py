"""An interrupted run that is resumed gives the same result as an uninterrupted one."""

from pathlib import Path

import pytest

from contract.errors import BadConfig, BadData
from contract.settings.training import TrainingConfig
from model.checkpoint import hash_weights
from tests.model.small import SHAPE
from tests.training.examples import PLAN, make_examples
from training.trainer.fit import Epoch, FitOptions, FitResult, fit

DROPOUT_SHAPE = SHAPE.model_copy(update={"dropout": 0.2})
SHORT_CONFIG = PLAN.model_copy(update={"epochs": 3, "patience": 9})


class SimulatedCrash(Exception):
    """Stands for the end of a process."""


def fit_epochs(
    config: TrainingConfig, state_path: Path | None, *, crash_after: int = 99, rows: int = 120
) -> tuple[FitResult, list[Epoch]]:
    epochs = list[Epoch]()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch)
        if epoch.number == crash_after:
            raise SimulatedCrash

    return fit(make_examples(rows, 3), DROPOUT_SHAPE, config, report, FitOptions(state_path)), epochs


@pytest.mark.parametrize(
    "changes",
    [{}, {"balance": "uncertainty"}, {"balance": "dwa"}, {"balance": "pcgrad"}, {"focus": 2.0}, {"refit": True}],
    ids=str,
)
def test_an_interrupted_run_resumes_to_the_same_weights(changes: dict[str, object], tmp_path: Path) -> None:
    config, path = SHORT_CONFIG.model_copy(update=changes), tmp_path / "state.pt"
    whole, epochs = fit_epochs(config, None)

    with pytest.raises(SimulatedCrash):
        fit_epochs(config, path, crash_after=2)
    resumed, rest = fit_epochs(config, path)

    assert rest == epochs[2:]
    assert hash_weights(resumed.network.state_dict()) == hash_weights(whole.network.state_dict())
    assert (resumed.score, resumed.evaluation) == (whole.score, whole.evaluation)
    assert str(resumed.optimizer) == str(whole.optimizer)


def test_a_finished_run_trains_only_when_given_more_epochs(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), path)

    assert fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), path)[1] == []
    assert [epoch.number for epoch in fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 2}), path)[1]] == [2]


@pytest.mark.parametrize(("seed_shift", "rows"), [(1, 120), (0, 121)])
def test_a_state_of_another_config_or_other_examples_is_rejected(seed_shift: int, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), path)
    before = path.read_bytes()

    with pytest.raises(BadData, match="should be the training state of this configuration on these examples"):
        fit_epochs(SHORT_CONFIG.model_copy(update={"seed": SHORT_CONFIG.seed + seed_shift}), path, rows=rows)

    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_truncated_state_file_is_rejected(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    fit_epochs(SHORT_CONFIG.model_copy(update={"epochs": 1}), path)
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(BadData, match=r"state.pt should be a training state. Found"):
        fit_epochs(SHORT_CONFIG, path)


def test_a_balancer_with_a_complex_state_is_rejected_before_anything_is_written(tmp_path: Path) -> None:
    config, path = SHORT_CONFIG.model_copy(update={"epochs": 1, "balance": "FAMO"}), tmp_path / "state.pt"

    with pytest.raises(BadConfig, match="`balance` should hold plain numbers"):
        fit_epochs(config, path)

    assert list(tmp_path.iterdir()) == []
