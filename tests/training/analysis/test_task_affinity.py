"""Task affinity: the cosines are those of the tasks' gradients, and the page says what the JSON says."""

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
from contract.settings import Settings, TrainingConfig
from tests.model.small import FEATURES, SHAPE, make_network
from tests.training.examples import PLAN, make_examples
from training.analysis.task_affinity import GradientCosines, TaskAffinity, compute_cosines, measure_affinity
from training.commands.affinity import run
from training.data.parquet import write_examples
from training.trainer.learner import Learner, compute_task_losses, to_batch


def test_cosines_look_at_what_both_tasks_reach() -> None:
    together, alone = torch.tensor([3.0, 4.0]), torch.tensor([100.0])
    mine: list[Tensor | None] = [together, alone, None]
    other: list[Tensor | None] = [torch.tensor([4.0, 3.0]), None, alone]
    apart: list[Tensor | None] = [None, None, torch.tensor([-1.0])]

    actual = compute_cosines([mine, other, apart])

    np.testing.assert_allclose(actual[:2, :2], [[1, 0.96], [0.96, 1]])
    assert actual[1, 2] == -1
    assert np.isnan(actual[0, 2])


def test_tasks_that_want_opposite_things_are_in_conflict_and_like_tasks_agree(seed: int) -> None:
    network = make_network(seed=seed)
    watch, losses = (
        GradientCosines(network, every=1),
        compute_task_losses(network.train(), to_batch(make_examples(60, seed))),
    )
    watch.start_epoch()

    watch({"click": losses["click"], "fraud": -2 * losses["click"], "relevance": 5 * losses["click"]})

    matrix = watch.mean_matrix(*watch.epochs)
    at = [watch.tasks.index(task) for task in ("click", "fraud", "relevance")]
    assert matrix[at[0]][at[1]] == pytest.approx(-1)
    assert matrix[at[0]][at[2]] == pytest.approx(1)
    assert matrix[at[0]][watch.tasks.index("category")] is None


def test_looking_changes_nothing_of_what_is_learned(seed: int) -> None:
    batch, weights = to_batch(make_examples(60, seed)), []
    for watched in (False, True):
        torch.manual_seed(seed)
        learner = Learner(network=make_network(seed=seed), plan=PLAN)
        if watched:
            learner.on_losses = GradientCosines(learner.network, every=1)
            learner.on_losses.start_epoch()
        for _ in range(3):
            learner.train_step(batch)
        weights.append(torch.cat([parameter.detach().reshape(-1) for parameter in learner.network.parameters()]))

    assert torch.equal(*weights)


def test_tasks_of_a_single_task_net_share_nothing(seed: int) -> None:
    actual = fit_affinity(seed, SHAPE.model_copy(update={"architecture": "single"}))

    assert {value for at, row in enumerate(actual.mean) for value in row[:at]} <= {None, *purchase_values(actual)}


def purchase_values(affinity: TaskAffinity) -> set[float | None]:
    """Purchase is read through click, so these two share even where nothing else does."""
    click, purchase = affinity.tasks.index("click"), affinity.tasks.index("purchase")
    return {affinity.mean[purchase][click]}


def fit_affinity(seed: int, shape: Any = SHAPE) -> TaskAffinity:
    plan = PLAN.model_copy(update={"seed": seed, "epochs": 2})
    return measure_affinity(make_examples(400, seed), shape, plan, lambda number, losses: None, every=2)


def test_equal_seeds_give_equal_figures_by_epoch(seed: int) -> None:
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
    args = Namespace(data=folder / "made.parquet", out=folder / "out", epochs=1, seed=seed)
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


def test_a_file_where_the_pages_should_go_is_refused_before_anything_is_learned(tmp_path: Path, seed: int) -> None:
    (tmp_path / "out").write_text("mine")

    with pytest.raises(BadConfig, match="`--out` should be a folder"):
        run_command(tmp_path, seed)
