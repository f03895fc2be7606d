"""Task affinity: the cosines are those of the tasks' gradients, and the page shows the values of the JSON."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from contract.errors import BadConfig
from contract.settings.reading import Settings
from contract.settings.training import TrainingConfig
from tests.model.small import FEATURES, SHAPE, make_network
from tests.training.examples import PLAN, make_examples
from training.analysis.task_affinity import GradientCosines, TaskAffinity, compute_cosines, measure_affinity
from training.commands.affinity import run
from training.data.parquet import write_examples
from training.trainer.batching import to_batch
from training.trainer.learner import Learner, compute_task_losses


def test_cosines_use_the_parameters_of_both_tasks() -> None:
    own = torch.tensor([100.0])
    first: list[Tensor | None] = [torch.tensor([3.0, 4.0]), own, None]
    second: list[Tensor | None] = [torch.tensor([4.0, 3.0]), None, own]
    third: list[Tensor | None] = [None, None, torch.tensor([-1.0])]

    actual = compute_cosines([first, second, third])

    np.testing.assert_allclose(actual[:2, :2], [[1, 0.96], [0.96, 1]])
    assert actual[1, 2] == -1
    assert np.isnan(actual[0, 2])


def test_opposite_losses_conflict_and_proportional_ones_agree(seed: int) -> None:
    network = make_network(seed=seed)
    cosines = GradientCosines(network, every=1)
    click_loss = compute_task_losses(network.train(), to_batch(make_examples(60, seed)))["click"]
    cosines.start_epoch()

    cosines({"click": click_loss, "fraud": -2 * click_loss, "relevance": 5 * click_loss})

    click_row = dict(
        zip(cosines.tasks, cosines.mean_matrix(*cosines.epochs)[cosines.tasks.index("click")], strict=True)
    )
    assert click_row["fraud"] == pytest.approx(-1)
    assert click_row["relevance"] == pytest.approx(1)
    assert click_row["category"] is None


def test_measuring_does_not_change_training(seed: int) -> None:
    batch, weights = to_batch(make_examples(60, seed)), []
    for is_measured in (False, True):
        torch.manual_seed(seed)
        learner = Learner(network=make_network(seed=seed), config=PLAN)
        if is_measured:
            learner.on_losses = GradientCosines(learner.network, every=1)
            learner.on_losses.start_epoch()
        for _ in range(3):
            learner.train_step(batch)
        weights.append(torch.cat([parameter.detach().reshape(-1) for parameter in learner.network.parameters()]))

    assert torch.equal(*weights)


def test_tasks_of_single_task_nets_share_nothing(seed: int) -> None:
    actual = fit_affinity(seed, SHAPE.model_copy(update={"architecture": "single"}))

    assert {value for index, row in enumerate(actual.mean) for value in row[:index]} <= {None, *purchase_values(actual)}


def purchase_values(affinity: TaskAffinity) -> set[float | None]:
    """The cosine of purchase and click, which always share parameters: purchase goes through click."""
    click, purchase = affinity.tasks.index("click"), affinity.tasks.index("purchase")
    return {affinity.mean[purchase][click]}


def fit_affinity(seed: int, model_config: Any = SHAPE) -> TaskAffinity:
    config = PLAN.model_copy(update={"seed": seed, "epochs": 2})
    return measure_affinity(make_examples(400, seed), model_config, config, lambda number, losses: None, every=2)


def test_equal_seeds_give_equal_cosines_by_epoch(seed: int) -> None:
    actual = fit_affinity(seed)

    assert actual == fit_affinity(seed)
    assert len(actual.epochs) == 2
    assert actual.looks > 2
    mean = np.array(actual.mean, float)
    np.testing.assert_allclose(mean, mean.T)
    np.testing.assert_allclose(np.diag(mean), 1)
    assert actual.pairs() == sorted(actual.pairs())


def run_command(folder: Path, seed: int) -> int:
    examples = make_examples(400, seed)
    write_examples(folder / "made.parquet", examples)
    training = TrainingConfig(batch=64, epochs=3)
    settings = SimpleNamespace(tasks=examples.tasks, model=SHAPE, training=training)
    args = Namespace(data=folder / "made.parquet", out=folder / "out", epochs=1, seed=seed, without_erasures=True)
    return run(args, cast(Settings, settings), FEATURES)


def test_the_page_shows_the_matrix_of_the_json(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(tmp_path, seed) == 0

    actual = msgspec.json.decode((tmp_path / "out" / "affinity.json").read_bytes(), type=TaskAffinity)
    page = (tmp_path / "out" / "affinity.html").read_text()
    assert page.count("<svg") == 1
    for row in actual.mean:
        for value in row:
            assert f"<td>{'–' if value is None else f'{value:.4g}'}</td>" in page
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["mean"] == actual.mean


def test_a_file_in_place_of_the_output_folder_is_rejected_before_training(tmp_path: Path, seed: int) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(BadConfig, match="`--out` should be a folder"):
        run_command(tmp_path, seed)
