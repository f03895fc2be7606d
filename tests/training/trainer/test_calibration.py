"""Calibration: after it a task says what happens, ranks as before, and the rest of the network stays as it was."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from model.network import Network
from tests.model.small import CATEGORY, CLICK, FRAUD, PURCHASE, RELEVANCE, TASKS, make_network
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.trainer.calibration import calibrate, compute_logits, fit_beta, fit_sharpness, to_features
from training.trainer.evaluation import evaluate
from training.trainer.learner import predict
from training.trainer.partition import split_held_out


@pytest.fixture(scope="module", params=(1, 2, 3), ids="seed {}".format)
def true(request: pytest.FixtureRequest) -> Network:
    """A network that is right: the labels of `examples` are drawn from what it says."""
    torch.manual_seed(request.param)
    network = make_network(seed=request.param)
    usual = compute_logits(network, make_examples(1_000, request.param))
    with torch.no_grad():
        for task, logit in usual.items():
            probabilities = logit[np.abs(logit).reshape(len(logit), -1).any(1)]
            outer = network.towers[f"of_{task}"].outer
            outer.bias -= torch.from_numpy(np.atleast_1d(probabilities.mean(0)))  # type: ignore[operator, union-attr]
            for values in (outer.weight, outer.bias):  # type: ignore[union-attr]
                values *= 1.5 / probabilities.std(0).mean()
    return network


@pytest.fixture(scope="module")
def examples(true: Network) -> Examples:
    examples, rng = make_examples(6_000, 5), np.random.default_rng(6)
    labels = dict[str, np.ndarray]()
    for task, p in predict(true, examples).items():
        was, random = examples.labels[task], rng.random((len(p), 1))
        drawn = (p.cumsum(1) > random).argmax(1) if p.ndim == 2 else p > random[:, 0]
        labels[task] = np.where((was == -1) | np.isnan(was), was, drawn).astype(was.dtype)
    return replace(examples, labels=labels)


@pytest.fixture(scope="module")
def overconfident(true: Network) -> Network:
    """The network that is right, made far too sure of itself, and of things happening."""
    network = deepcopy(true)
    with torch.no_grad():
        for tower in network.towers.values():
            tower.outer.weight *= 4  # type: ignore[operator, union-attr]
            tower.outer.bias.mul_(4).add_(0.7)  # type: ignore[operator, union-attr]
    return network


def calibrate_network(network: Network, examples: Examples) -> Network:
    found = deepcopy(network)
    calibrate(found, examples)
    return found


def test_every_task_says_what_is_true_again_on_rows_that_calibrated_nothing(
    true: Network, overconfident: Network, examples: Examples
) -> None:
    first, second = split_held_out(examples)
    wanted, before, after = (predict(n, second) for n in (true, overconfident, calibrate_network(overconfident, first)))

    for task in TASKS:
        rows = second.has_label(task)
        error_before, error_after = (np.abs(p[task.name] - wanted[task.name])[rows].mean() for p in (before, after))
        assert error_after < error_before / 2


def test_figures_of_calibrated_answers_are_nearer_to_those_of_the_truth(
    true: Network, overconfident: Network, examples: Examples
) -> None:
    first, second = split_held_out(examples)
    best, before, after = (evaluate(n, second) for n in (true, overconfident, calibrate_network(overconfident, first)))

    for task in TASKS:
        lost_before, lost_after = (of[task.name]["log_loss"] - best[task.name]["log_loss"] for of in (before, after))
        assert lost_after < lost_before / 3
        gap = after[task.name].get("mean_prediction", 0) - best[task.name].get("mean_prediction", 0)
        assert abs(gap) < 0.08


def test_no_row_overtakes_another_and_no_other_class_wins(overconfident: Network, examples: Examples) -> None:
    before, after = (predict(n, examples) for n in (overconfident, calibrate_network(overconfident, examples)))

    for task in (CLICK, FRAUD, RELEVANCE):
        rows = examples.has_label(task)
        was, is_ = before[task.name][rows], after[task.name][rows]
        assert (np.diff(is_[np.lexsort((is_, was))]) >= -1e-6).all()  # some were so sure that they were equal
    rows = examples.has_label(CATEGORY)
    assert (before["category"][rows].argmax(1) == after["category"][rows].argmax(1)).all()


def test_a_purchase_is_calibrated_and_still_never_likelier_than_its_click(
    overconfident: Network, examples: Examples
) -> None:
    said = predict(calibrate_network(overconfident, examples), examples)
    rows = examples.has_label(PURCHASE)

    assert (said["purchase"][rows] <= said["click"][rows]).all()
    assert said["purchase"][rows].mean() == pytest.approx(examples.labels["purchase"][rows].mean(), abs=0.02)


def test_nothing_but_calibrators_changes_and_those_of_tasks_without_labels_do_not(
    overconfident: Network, examples: Examples
) -> None:
    actual = calibrate_network(overconfident, examples.take(~examples.has_label(FRAUD)))

    was, is_ = overconfident.state_dict(), actual.state_dict()
    changed = {name for name in was if not torch.equal(was[name], is_[name])}
    assert changed == {f"calibrators.of_{task.name}.values" for task in TASKS if task != FRAUD}


def test_the_map_that_made_the_labels_is_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, 60_000)
    y = (rng.random(60_000) < expit(to_features(z) @ [0.5, 1.5, -0.4])).astype(np.float32)

    assert fit_beta(z, y, np.ones(len(z))) == pytest.approx([0.5, 1.5, -0.4], abs=0.1)


def test_the_map_behind_a_product_is_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, before = rng.normal(0, 2, 100_000), rng.random(100_000)
    y = (rng.random(len(z)) < before * expit(to_features(z) @ [0.7, 1.2, 0.3])).astype(np.float32)

    assert fit_beta(z, y, before) == pytest.approx([0.7, 1.2, 0.3], abs=0.15)


def test_a_temperature_is_found_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, (20_000, 4))
    y = (0.4 * z + rng.gumbel(size=z.shape)).argmax(1)

    assert fit_sharpness(z, y) == pytest.approx([0.4], abs=0.03)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_few_rows_of_one_label_move_little(label: float) -> None:
    actual = fit_beta(np.zeros(3), np.full(3, label), np.ones(3))

    assert actual == pytest.approx([1, 1, 0], abs=0.25)


@pytest.mark.parametrize("logits", [np.full(50, 700.0), np.full(50, -700.0), np.array([700.0, -700.0] * 25)])
def test_certain_answers_that_are_wrong_give_finite_values(logits: np.ndarray) -> None:
    y = (logits < 0).astype(np.float32)

    assert np.isfinite(fit_beta(logits, y, np.ones(50))).all()


def test_examples_without_any_row_leave_everything_as_it_is(examples: Examples) -> None:
    network = make_network()

    actual = calibrate_network(network, examples.take(np.zeros(len(examples), bool)))

    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), actual.state_dict().values(), strict=True)
    )
