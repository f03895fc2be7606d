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
    """Clicks of many users, as they are in life."""
    examples = make_examples(300, 5)
    examples = examples.take(np.resize(np.flatnonzero(examples.has_label(CLICK)), rows))
    examples.user_id[:] = [f"u{at // 2}" for at in range(rows)]
    return examples


def calibrated_predictions(examples: Examples) -> np.ndarray:
    """Calibrated: of what is said with 0.8 or 0.2 so much is true."""
    wrong = np.random.default_rng(1).random(len(examples)) < 0.2
    return np.asarray(np.where((examples.labels["click"] > 0.5) ^ wrong, 0.8, 0.2), np.float32)


def run_gate(examples: Examples, old: np.ndarray, new: np.ndarray, margin: float = MARGIN) -> GateResult:
    return check_update((CLICK,), [PairedPredictions("recent", examples, {"click": old}, {"click": new})], margin)


def add_noise(p: np.ndarray, scale: float) -> np.ndarray:
    """All log odds moved at random by about so much."""
    odds = np.log(p / (1 - p)) + np.random.default_rng(2).normal(0, scale, len(p))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def test_a_gentle_update_passes_with_its_figures() -> None:
    examples = make_clicks(400)
    old = calibrated_predictions(examples)

    verdict = run_gate(examples, old, add_noise(old, 0.05))

    assert verdict.rejections == []
    assert {"lost", "lost_low", "lost_high", "level", "ece"} <= set(verdict.metrics["recent click"])
    assert "lost" in verdict.metrics["recent score"]


def test_an_update_that_may_have_lost_more_than_the_margin_has_to_prove_that_it_did_not() -> None:
    # Given a wild one that on the whole may well be no worse
    examples = make_clicks(60)
    old = calibrated_predictions(examples)
    wild = add_noise(old, 1.0)

    verdict = run_gate(examples, old, wild)

    # Then it is refused, for its interval is wide
    assert any("chance included" in sentence for sentence in verdict.rejections)


@pytest.mark.parametrize("rows", [200, 1_000])
def test_a_task_that_is_worse_is_refused_with_the_figures(rows: int) -> None:
    examples = make_clicks(rows)

    refused = run_gate(examples, calibrated_predictions(examples), 1 - calibrated_predictions(examples)).rejections

    assert refused[0].startswith(f"`click` should lose at most 0.05 of its gain on {rows} recent examples")


def test_a_level_that_is_off_is_refused_although_the_order_is_as_good() -> None:
    examples = make_clicks(2_000)
    old = calibrated_predictions(examples)
    odds = np.log(old / (1 - old)) + 0.9

    refused = run_gate(examples, old, (1 / (1 + np.exp(-odds))).astype(np.float32), margin=9.0).rejections

    assert any("The level of `click`" in sentence for sentence in refused)
    assert any("calibration error of `click`" in sentence for sentence in refused)


def test_what_is_put_right_is_not_refused() -> None:
    examples = make_clicks(2_000)
    right = calibrated_predictions(examples)
    odds = np.log(right / (1 - right)) + 0.9

    assert run_gate(examples, (1 / (1 + np.exp(-odds))).astype(np.float32), right).rejections == []


def test_kept_examples_see_what_new_ones_do_not(seed: int) -> None:
    # Given an update that suits the newest examples, whose labels are upside down, and not those of before
    new, kept = make_clicks(300), make_clicks(301)
    new.labels["click"][:] = 1 - new.labels["click"]
    sets = [
        PairedPredictions(
            "recent", new, {"click": 1 - calibrated_predictions(new)}, {"click": calibrated_predictions(new)}
        ),
        PairedPredictions(
            "kept", kept, {"click": calibrated_predictions(kept)}, {"click": 1 - calibrated_predictions(kept)}
        ),
    ]

    refused = check_update((CLICK,), sets, MARGIN).rejections

    assert refused
    assert all("kept" in sentence for sentence in refused)


def test_a_task_without_new_labels_is_judged_by_kept_ones() -> None:
    examples = make_examples(600, 4)
    kept = examples.take(np.flatnonzero(examples.has_label(FRAUD)))
    kept.user_id[:] = [f"u{at}" for at in range(len(kept))]
    truth = kept.labels["fraud"].clip(0.1, 0.9)

    sets = [
        PairedPredictions("recent", make_clicks(100), {}, {}),
        PairedPredictions("kept", kept, {"fraud": truth}, {"fraud": 1 - truth}),
    ]

    assert "`fraud` should lose" in check_update((FRAUD,), sets, MARGIN).rejections[0]


def test_a_few_rows_refuse_what_is_worse_beyond_chance_and_nothing_else() -> None:
    examples = make_clicks(ROWS_MIN - 1)
    old = calibrated_predictions(examples)

    assert run_gate(examples, old, add_noise(old, 0.8)).rejections == []
    assert "`click` should lose" in run_gate(examples, old, 1 - old).rejections[0]


@pytest.mark.parametrize(
    ("rows", "asked"),
    [(ROWS_MIN - 1, "low"), (ROWS_MIN, "value"), (ROWS_RELIABLE - 1, "value"), (ROWS_RELIABLE, "high")],
)
def test_the_fewer_rows_there_are_the_less_chance_may_refuse(rows: int, asked: str) -> None:
    lost = Interval(value=0.04, low=0.0, high=0.08)

    assert choose_bound(lost, rows) == getattr(lost, asked)


def test_few_rows_of_each_set_judge_together() -> None:
    one, other = make_clicks(30), make_clicks(31)
    sets = [
        PairedPredictions(name, of, {"click": calibrated_predictions(of)}, {"click": 1 - calibrated_predictions(of)})
        for name, of in zip("ab", (one, other), strict=True)
    ]

    assert "on 61 all examples" in check_update((CLICK,), sets, MARGIN).rejections[0]


def test_a_task_without_any_label_is_not_judged() -> None:
    examples = make_clicks(80)

    verdict = check_update((CATEGORY,), [PairedPredictions("recent", examples, {}, {})], MARGIN)

    assert (verdict.rejections, verdict.metrics) == ([], {})


def test_answers_that_are_not_finite_are_refused_however_few() -> None:
    examples = make_clicks(400)
    broken = calibrated_predictions(examples)
    broken[7] = np.nan

    assert run_gate(examples, calibrated_predictions(examples), broken).rejections == [
        "`click` should answer with finite numbers. Found others."
    ]


def test_weights_that_are_not_finite_are_named() -> None:
    network = make_network()
    assert check_finite_weights(network) == []

    name, weights = next(iter(network.named_parameters()))
    weights.data.view(-1)[0] = float("nan")

    assert check_finite_weights(network) == [f"Weights should be finite. Found others in {name}."]
