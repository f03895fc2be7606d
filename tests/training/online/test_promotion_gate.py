import numpy as np
import pytest

from tests.model.small import CATEGORY, CLICK, FRAUD, make_network
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.online.promotion_gate import (
    ROWS_MIN,
    ROWS_RELIABLE,
    GateResult,
    check_finite_weights,
    check_update,
    choose_bound,
)
from training.stats.bootstrap import Interval
from training.stats.paired_predictions import PairedPredictions

MARGIN = 0.05


def make_clicks(rows: int) -> Examples:
    """Clicks of many users, two rows of each."""
    examples = make_examples(300, 5)
    examples = examples.take(np.resize(np.flatnonzero(examples.has_label(CLICK)), rows))
    examples.user_id[:] = [f"u{n // 2}" for n in range(rows)]
    return examples


def make_calibrated_predictions(examples: Examples) -> np.ndarray:
    """Calibrated predictions, all of them 0.8 or 0.2."""
    wrong = np.random.default_rng(1).random(len(examples)) < 0.2
    return np.asarray(np.where((examples.labels["click"] > 0.5) ^ wrong, 0.8, 0.2), np.float32)


def run_gate(examples: Examples, old: np.ndarray, new: np.ndarray, margin: float = MARGIN) -> GateResult:
    return check_update((CLICK,), [PairedPredictions("recent", examples, {"click": old}, {"click": new})], margin)


def add_noise(p: np.ndarray, scale: float) -> np.ndarray:
    """Normal noise of this scale added to all log odds."""
    odds = np.log(p / (1 - p)) + np.random.default_rng(2).normal(0, scale, len(p))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def test_a_small_change_passes_and_has_metrics() -> None:
    examples = make_clicks(400)
    old = make_calibrated_predictions(examples)

    result = run_gate(examples, old, add_noise(old, 0.05))

    assert result.rejections == []
    assert {"lost", "lost_low", "lost_high", "level", "ece"} <= set(result.metrics["recent click"])
    assert "lost" in result.metrics["recent score"]


def test_a_large_change_without_evidence_is_rejected() -> None:
    # given an update with much noise, which on average may be no worse
    examples = make_clicks(60)
    old = make_calibrated_predictions(examples)
    noisy = add_noise(old, 1.0)

    # when the gate judges it
    result = run_gate(examples, old, noisy)

    # then it is rejected, since the interval is wide
    assert any("uncertainty included" in sentence for sentence in result.rejections)


@pytest.mark.parametrize("rows", [200, 1_000])
def test_a_task_that_is_worse_is_rejected_with_its_metrics(rows: int) -> None:
    examples = make_clicks(rows)
    old = make_calibrated_predictions(examples)

    rejections = run_gate(examples, old, 1 - old).rejections

    assert rejections[0].startswith(f"`click` should lose at most 0.05 of its gain on {rows} recent examples")


def test_biased_predictions_are_rejected_although_they_rank_as_well() -> None:
    examples = make_clicks(2_000)
    old = make_calibrated_predictions(examples)
    odds = np.log(old / (1 - old)) + 0.9

    rejections = run_gate(examples, old, (1 / (1 + np.exp(-odds))).astype(np.float32), margin=9.0).rejections

    assert any("The bias of the predictions of `click`" in sentence for sentence in rejections)
    assert any("calibration error of `click`" in sentence for sentence in rejections)


def test_an_update_that_removes_a_bias_passes() -> None:
    examples = make_clicks(2_000)
    right = make_calibrated_predictions(examples)
    odds = np.log(right / (1 - right)) + 0.9

    assert run_gate(examples, (1 / (1 + np.exp(-odds))).astype(np.float32), right).rejections == []


def test_replayed_examples_reject_what_new_ones_would_accept(seed: int) -> None:
    # given an update that fits the newest examples, whose labels are inverted, and not the replayed ones
    new, buffered = make_clicks(300), make_clicks(301)
    new.labels["click"][:] = 1 - new.labels["click"]
    new_p, buffered_p = make_calibrated_predictions(new), make_calibrated_predictions(buffered)
    sets = [
        PairedPredictions("recent", new, {"click": 1 - new_p}, {"click": new_p}),
        PairedPredictions("kept", buffered, {"click": buffered_p}, {"click": 1 - buffered_p}),
    ]

    # when the gate judges it
    rejections = check_update((CLICK,), sets, MARGIN).rejections

    # then the replayed examples alone reject it
    assert rejections
    assert all("kept" in sentence for sentence in rejections)


def test_a_task_without_new_labels_is_judged_by_replayed_ones() -> None:
    examples = make_examples(600, 4)
    buffered = examples.take(np.flatnonzero(examples.has_label(FRAUD)))
    buffered.user_id[:] = [f"u{n}" for n in range(len(buffered))]
    truth = buffered.labels["fraud"].clip(0.1, 0.9)

    sets = [
        PairedPredictions("recent", make_clicks(100), {}, {}),
        PairedPredictions("kept", buffered, {"fraud": truth}, {"fraud": 1 - truth}),
    ]

    assert "`fraud` should lose" in check_update((FRAUD,), sets, MARGIN).rejections[0]


def test_few_rows_reject_only_what_is_clearly_worse() -> None:
    examples = make_clicks(ROWS_MIN - 1)
    old = make_calibrated_predictions(examples)

    assert run_gate(examples, old, add_noise(old, 0.8)).rejections == []
    assert "`click` should lose" in run_gate(examples, old, 1 - old).rejections[0]


@pytest.mark.parametrize(
    ("rows", "bound"),
    [(ROWS_MIN - 1, "low"), (ROWS_MIN, "value"), (ROWS_RELIABLE - 1, "value"), (ROWS_RELIABLE, "high")],
)
def test_the_bound_that_is_compared_depends_on_the_number_of_rows(rows: int, bound: str) -> None:
    lost = Interval(value=0.04, low=0.0, high=0.08)

    assert choose_bound(lost, rows) == getattr(lost, bound)


def test_sets_with_few_rows_are_pooled() -> None:
    sets = list[PairedPredictions]()
    for name, rows in (("a", 30), ("b", 31)):
        examples = make_clicks(rows)
        p = make_calibrated_predictions(examples)
        sets.append(PairedPredictions(name, examples, {"click": p}, {"click": 1 - p}))

    assert "on 61 all examples" in check_update((CLICK,), sets, MARGIN).rejections[0]


def test_a_task_without_any_label_is_not_judged() -> None:
    examples = make_clicks(80)

    result = check_update((CATEGORY,), [PairedPredictions("recent", examples, {}, {})], MARGIN)

    assert (result.rejections, result.metrics) == ([], {})


def test_a_single_prediction_that_is_not_finite_is_rejected() -> None:
    examples = make_clicks(400)
    broken = make_calibrated_predictions(examples)
    broken[7] = np.nan

    assert run_gate(examples, make_calibrated_predictions(examples), broken).rejections == [
        "`click` should have finite predictions. Found others."
    ]


def test_weights_that_are_not_finite_are_named() -> None:
    network = make_network()
    assert check_finite_weights(network) == []

    name, weights = next(iter(network.named_parameters()))
    weights.data.view(-1)[0] = float("nan")

    assert check_finite_weights(network) == [f"Weights should be finite. Found others in {name}."]
