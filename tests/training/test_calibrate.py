"""Calibration: after it a task says what happens, ranks as before, and the rest of the network stays as it was."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from scipy.special import expit

from model.network import Network
from tests.model.small import CATEGORY, CLICK, FRAUD, PURCHASE, RELEVANCE, SHAPE, TASKS, make_network
from tests.training.made import PLAN, make_examples
from training.calibrate import calibrate, features_of, fit_beta, fit_sharpness
from training.evaluation import evaluate
from training.examples import Examples
from training.fit import first_network, halves, learn_once
from training.learner import Learner, predict


@pytest.fixture(scope="module")
def examples() -> Examples:
    return make_examples(3_000, 5)


@pytest.fixture(scope="module")
def overconfident(examples: Examples) -> Network:
    """A network that has learned a little and is then made far too sure of itself, and of things happening."""
    torch.manual_seed(5)
    network = first_network(examples, SHAPE)
    learn_once(Learner(network=network, plan=PLAN), examples, 64, np.random.default_rng(5))
    with torch.no_grad():
        for tower in network.towers.values():
            tower.outer.weight *= 4  # type: ignore[union-attr, operator]
            tower.outer.bias += 0.7  # type: ignore[union-attr, operator]
    return network.eval()


def calibrated(network: Network, examples: Examples) -> Network:
    found = deepcopy(network)
    calibrate(found, examples)
    return found


def test_every_task_says_better_what_happens_on_rows_that_calibrated_nothing(
    overconfident: Network, examples: Examples
) -> None:
    first, second = halves(examples)

    before, after = (evaluate(n, second) for n in (overconfident, calibrated(overconfident, first)))

    assert after["category"]["log_loss"] < before["category"]["log_loss"] + 0.01
    for task in (CLICK, PURCHASE, FRAUD, RELEVANCE):
        assert after[task.name]["log_loss"] < before[task.name]["log_loss"]
        assert after[task.name]["ece"] < before[task.name]["ece"] / 2
        gap = after[task.name]["mean_prediction"] - after[task.name]["mean_label"]
        assert abs(gap) < 0.03


def test_no_row_overtakes_another_and_no_other_class_wins(overconfident: Network, examples: Examples) -> None:
    before, after = (predict(n, examples) for n in (overconfident, calibrated(overconfident, examples)))

    for task in (CLICK, FRAUD, RELEVANCE):
        rows = examples.known(task)
        order = np.argsort(before[task.name][rows])
        assert (np.diff(after[task.name][rows][order]) >= 0).all()
    rows = examples.known(CATEGORY)
    assert (before["category"][rows].argmax(1) == after["category"][rows].argmax(1)).all()


def test_a_purchase_is_calibrated_and_still_never_likelier_than_its_click(
    overconfident: Network, examples: Examples
) -> None:
    said = predict(calibrated(overconfident, examples), examples)
    rows = examples.known(PURCHASE)

    assert (said["purchase"][rows] <= said["click"][rows]).all()
    assert said["purchase"][rows].mean() == pytest.approx(examples.labels["purchase"][rows].mean(), abs=0.02)


def test_nothing_but_calibrators_changes_and_those_of_tasks_without_labels_do_not(
    overconfident: Network, examples: Examples
) -> None:
    found = calibrated(overconfident, examples.take(~examples.known(FRAUD)))

    was, is_ = overconfident.state_dict(), found.state_dict()
    changed = {name for name in was if not torch.equal(was[name], is_[name])}
    assert changed == {f"calibrators.of_{task.name}.values" for task in TASKS if task != FRAUD}


def test_the_map_that_made_the_labels_is_found_again(seed: int) -> None:
    chance = np.random.default_rng(seed)
    z = chance.normal(0, 2, 60_000)
    y = (chance.random(60_000) < expit(features_of(z) @ [0.5, 1.5, -0.4])).astype(np.float32)

    assert fit_beta(z, y, np.ones(len(z))) == pytest.approx([0.5, 1.5, -0.4], abs=0.1)


def test_the_map_behind_a_product_is_found_again(seed: int) -> None:
    chance = np.random.default_rng(seed)
    z, before = chance.normal(0, 2, 100_000), chance.random(100_000)
    y = (chance.random(len(z)) < before * expit(features_of(z) @ [0.7, 1.2, 0.3])).astype(np.float32)

    assert fit_beta(z, y, before) == pytest.approx([0.7, 1.2, 0.3], abs=0.15)


def test_a_temperature_is_found_again(seed: int) -> None:
    chance = np.random.default_rng(seed)
    z = chance.normal(0, 3, (20_000, 4))
    y = (0.4 * z + chance.gumbel(size=z.shape)).argmax(1)

    assert fit_sharpness(z, y) == pytest.approx([0.4], abs=0.03)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_few_rows_of_one_label_move_little(label: float) -> None:
    found = fit_beta(np.zeros(3), np.full(3, label), np.ones(3))

    assert found == pytest.approx([1, 1, 0], abs=0.25)


@pytest.mark.parametrize("logits", [np.full(50, 700.0), np.full(50, -700.0), np.array([700.0, -700.0] * 25)])
def test_certain_answers_that_are_wrong_give_finite_values(logits: np.ndarray) -> None:
    y = (logits < 0).astype(np.float32)

    assert np.isfinite(fit_beta(logits, y, np.ones(50))).all()


def test_examples_without_any_row_leave_everything_as_it_is(examples: Examples) -> None:
    network = make_network()

    found = calibrated(network, examples.take(np.zeros(len(examples), bool)))

    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), found.state_dict().values(), strict=True)
    )
