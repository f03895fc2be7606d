"""Calibration makes probabilities match outcomes, keeps rankings, and changes only the calibrators."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from msgspec import structs
from scipy.special import expit

from model.network import Network
from tests.model.small import CATEGORY, CLICK, DEMAND, FEATURES, FRAUD, PURCHASE, RELEVANCE, TASKS, make_network
from tests.training.examples import make_examples, make_rows
from training.data.examples import Examples, from_rows
from training.trainer.calibration import calibrate, compute_logits, fit_beta, fit_level, fit_sharpness, to_features
from training.trainer.evaluation import evaluate
from training.trainer.learner import predict
from training.trainer.partition import split_held_out


@pytest.fixture(scope="module", params=(1, 2, 3), ids="seed {}".format)
def true_network(request: pytest.FixtureRequest) -> Network:
    """A perfectly calibrated network: the labels of `examples` are drawn from its predictions."""
    torch.manual_seed(request.param)
    network = make_network(seed=request.param)
    logits = compute_logits(network, make_examples(1_000, request.param))
    with torch.no_grad():
        for task, logit in logits.items():
            own_logits = logit[np.abs(logit).reshape(len(logit), -1).any(1)]
            outer = network.towers[f"of_{task}"].outer
            outer.bias -= torch.from_numpy(np.atleast_1d(own_logits.mean(0)))  # type: ignore[operator, union-attr]
            for values in (outer.weight, outer.bias):  # type: ignore[union-attr]
                values *= 1.5 / own_logits.std(0).mean()
    return network


@pytest.fixture(scope="module")
def examples(true_network: Network) -> Examples:
    examples, rng = make_examples(6_000, 5), np.random.default_rng(6)
    labels = dict[str, np.ndarray]()
    for task, p in predict(true_network, examples).items():
        original, random = examples.labels[task], rng.random((len(p), 1))
        drawn = (p.cumsum(1) > random).argmax(1) if p.ndim == 2 else p > random[:, 0]
        labels[task] = np.where((original == -1) | np.isnan(original), original, drawn).astype(original.dtype)
    return replace(examples, labels=labels)


@pytest.fixture(scope="module")
def overconfident(true_network: Network) -> Network:
    """The true network with logits scaled up and shifted towards positives."""
    network = deepcopy(true_network)
    with torch.no_grad():
        for tower in network.towers.values():
            tower.outer.weight *= 4  # type: ignore[operator, union-attr]
            tower.outer.bias.mul_(4).add_(0.7)  # type: ignore[operator, union-attr]
    return network


def calibrate_network(network: Network, examples: Examples) -> Network:
    calibrated = deepcopy(network)
    calibrate(calibrated, examples)
    return calibrated


def test_calibration_halves_the_error_of_every_task_on_unseen_rows(
    true_network: Network, overconfident: Network, examples: Examples
) -> None:
    first, second = split_held_out(examples)
    networks = true_network, overconfident, calibrate_network(overconfident, first)
    expected, before, after = (predict(network, second) for network in networks)

    for task in TASKS:
        rows = second.has_label(task)
        error_before, error_after = (np.abs(p[task.name] - expected[task.name])[rows].mean() for p in (before, after))
        assert error_after < error_before / 2


def test_calibration_brings_metrics_closer_to_those_of_the_true_network(
    true_network: Network, overconfident: Network, examples: Examples
) -> None:
    first, second = split_held_out(examples)
    networks = true_network, overconfident, calibrate_network(overconfident, first)
    best, before, after = (evaluate(network, second) for network in networks)

    for task in TASKS:
        lost_before = before[task.name]["log_loss"] - best[task.name]["log_loss"]
        lost_after = after[task.name]["log_loss"] - best[task.name]["log_loss"]
        assert lost_after < lost_before / 3
        gap = after[task.name].get("mean_prediction", 0) - best[task.name].get("mean_prediction", 0)
        assert abs(gap) < 0.08


def test_calibration_keeps_the_order_of_rows_and_the_top_class(overconfident: Network, examples: Examples) -> None:
    before, after = (predict(n, examples) for n in (overconfident, calibrate_network(overconfident, examples)))

    for task in (CLICK, FRAUD, RELEVANCE):
        rows = examples.has_label(task)
        old, new = before[task.name][rows], after[task.name][rows]
        assert (np.diff(new[np.lexsort((new, old))]) >= -1e-6).all()  # saturated predictions were equal before
    rows = examples.has_label(CATEGORY)
    assert (before["category"][rows].argmax(1) == after["category"][rows].argmax(1)).all()


def test_a_calibrated_purchase_is_never_likelier_than_its_click(overconfident: Network, examples: Examples) -> None:
    predictions = predict(calibrate_network(overconfident, examples), examples)
    rows = examples.has_label(PURCHASE)

    assert (predictions["purchase"][rows] <= predictions["click"][rows]).all()
    assert predictions["purchase"][rows].mean() == pytest.approx(examples.labels["purchase"][rows].mean(), abs=0.02)


def test_only_calibrators_of_tasks_with_labels_change(overconfident: Network, examples: Examples) -> None:
    actual = calibrate_network(overconfident, examples.take(~examples.has_label(FRAUD)))

    before, after = overconfident.state_dict(), actual.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"calibrators.of_{task.name}.values" for task in TASKS if task != FRAUD}


def test_the_beta_map_of_the_labels_is_recovered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, 60_000)
    y = (rng.random(60_000) < expit(to_features(z) @ [0.5, 1.5, -0.4])).astype(np.float32)

    assert fit_beta(z, y, np.ones(len(z))) == pytest.approx([0.5, 1.5, -0.4], abs=0.1)


def test_the_beta_map_behind_a_product_is_recovered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, before = rng.normal(0, 2, 100_000), rng.random(100_000)
    y = (rng.random(len(z)) < before * expit(to_features(z) @ [0.7, 1.2, 0.3])).astype(np.float32)

    assert fit_beta(z, y, before) == pytest.approx([0.7, 1.2, 0.3], abs=0.15)


def test_the_temperature_of_the_labels_is_recovered(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, (20_000, 4))
    y = (0.4 * z + rng.gumbel(size=z.shape)).argmax(1)

    assert fit_sharpness(z, y) == pytest.approx([0.4], abs=0.03)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_few_rows_of_one_label_change_little(label: float) -> None:
    actual = fit_beta(np.zeros(3), np.full(3, label), np.ones(3))

    assert actual == pytest.approx([1, 1, 0], abs=0.25)


@pytest.mark.parametrize("logits", [np.full(50, 700.0), np.full(50, -700.0), np.array([700.0, -700.0] * 25)])
def test_certain_wrong_predictions_give_finite_values(logits: np.ndarray) -> None:
    y = (logits < 0).astype(np.float32)

    assert np.isfinite(fit_beta(logits, y, np.ones(50))).all()


def test_examples_without_rows_change_nothing(examples: Examples) -> None:
    network = make_network()

    actual = calibrate_network(network, examples.take(np.zeros(len(examples), bool)))

    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), actual.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_mean_prediction_of_a_regression_becomes_the_mean_label(seed: int) -> None:
    network = make_network(tasks=(DEMAND,), seed=seed)
    orders, rng = [row for row in make_rows(4_000, seed) if "order" in row.groups], np.random.default_rng(seed)
    spent = [structs.replace(row, labels={DEMAND.name: rng.lognormal(2, 1)}, known_ms={}) for row in orders]
    examples = from_rows(spent, FEATURES, (DEMAND,))

    calibrated = calibrate_network(network, examples)

    before, after = (float(predict(n, examples)[DEMAND.name].mean()) for n in (network, calibrated))
    observed = float(examples.labels[DEMAND.name].mean())
    assert abs(before / observed - 1) > 0.1
    assert after == pytest.approx(observed, rel=1e-3)
    assert evaluate(calibrated, examples)[DEMAND.name]["predicted_to_observed"] == pytest.approx(1, rel=1e-3)


def test_predictions_that_say_nothing_shrink_to_the_mean_label() -> None:
    rng = np.random.default_rng(8)

    slope, offset = fit_level(rng.normal(0, 1, 5_000), rng.normal(2, 1, 5_000))

    assert slope == pytest.approx(0.05, abs=0.03)
    assert offset == pytest.approx(2, abs=0.1)


def test_a_few_labels_of_a_regression_change_its_level_but_hardly_its_slope() -> None:
    slope, offset = fit_level(np.array([-0.1, 0.1]), np.array([5.0, 1.0]))

    assert slope == pytest.approx(0.9, abs=0.1)
    assert offset == pytest.approx(3)
