import numpy as np
import pytest

from tests.model.small import CATEGORY, CLICK, DEMAND, TASKS
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.metrics.metrics import calibration_error, log_loss
from training.stats.bootstrap import (
    PairedLosses,
    PairedPredictions,
    bootstrap_interval,
    first_column,
    index_users,
    predict_constant,
    row_losses,
)

ROWS = 400


def make_clicks(rows: int = ROWS) -> Examples:
    examples = make_examples(300, 3)
    return examples.take(np.resize(np.flatnonzero(examples.has_label(CLICK)), rows))


def draw_predictions(seed: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.95, rows).astype(np.float32)


def make_pairs(old: np.ndarray, new: np.ndarray, examples: Examples | None = None) -> PairedLosses:
    return PairedPredictions("recent", examples or make_clicks(len(old)), {"click": old}, {"click": new}).pair_losses(
        CLICK
    )


def test_models_that_say_the_same_lose_nothing_for_certain() -> None:
    same = make_pairs(draw_predictions(1), draw_predictions(1))

    for found in (same.gain_lost(), same.level_error_increase(), same.calibration_error_increase()):
        assert found == (0, 0, 0)


def test_what_is_lost_is_the_rise_of_the_log_loss_as_a_share_of_the_constants() -> None:
    examples, old, new = make_clicks(), draw_predictions(1), draw_predictions(2)
    y = examples.labels["click"]

    actual = make_pairs(old, new, examples).gain_lost()

    expected = (log_loss(y, new) - log_loss(y, old)) / log_loss(y, np.full(len(y), y.mean()))
    assert actual.value == pytest.approx(expected, abs=1e-5)
    assert actual.low < actual.value < actual.high


def test_the_calibration_error_is_that_of_the_figures() -> None:
    examples, old, new = make_clicks(), draw_predictions(1), draw_predictions(1) ** 2
    y = examples.labels["click"]

    actual = make_pairs(old, new, examples).calibration_error_increase()

    assert actual.value == pytest.approx(calibration_error(y, new) - calibration_error(y, old), abs=1e-6)


def test_the_level_is_how_much_further_off_the_sums_are() -> None:
    examples = make_clicks()
    rate = examples.labels["click"].mean()

    actual = make_pairs(
        np.full(ROWS, rate, np.float32), np.full(ROWS, 1.3 * rate, np.float32), examples
    ).level_error_increase()

    assert actual.value == pytest.approx(0.3, abs=1e-3)
    assert actual.high > 0.3 > actual.low


def test_a_model_that_moves_little_has_a_narrow_interval() -> None:
    old = draw_predictions(1)

    little, much = make_pairs(old, 0.99 * old).gain_lost(), make_pairs(old, draw_predictions(2)).gain_lost()

    assert little.high - little.low < (much.high - much.low) / 8


def test_rows_of_one_user_count_as_one_draw() -> None:
    value = np.random.default_rng(1).normal(size=(1_000, 1))

    apart = bootstrap_interval(value, np.arange(1_000), first_column)
    alike = bootstrap_interval(np.repeat(value[:100], 10, 0), np.repeat(np.arange(100), 10), first_column)

    assert (alike.high - alike.low) > 2 * (apart.high - apart.low)


def test_the_bounds_hold_the_truth_nineteen_times_of_twenty(seed: int) -> None:
    rng, held = np.random.default_rng(seed), 0
    for _ in range(200):
        actual = bootstrap_interval(rng.normal(1, 2, (150, 1)) / 150, np.arange(150), first_column)
        held += actual.low <= 1 <= actual.high

    assert 180 <= held <= 200


def test_rows_of_nobody_are_each_their_own() -> None:
    examples = make_examples(50, 1)
    examples.user_id[:10] = ""

    actual = index_users(examples)

    assert len(set(actual[:10].tolist())) == 10
    assert len(set(actual.tolist())) == 10 + len(set(examples.user_id[10:].tolist()))


def test_users_of_different_sets_count_as_different_ones() -> None:
    one = make_pairs(draw_predictions(1), draw_predictions(2))

    both = PairedLosses.concatenate([one, one])

    assert len(both) == 2 * len(one)
    assert len(set(both.user.tolist())) == 2 * len(set(one.user.tolist()))
    assert both.gain_lost().value == pytest.approx(one.gain_lost().value)


def test_classes_and_amounts_have_losses_of_their_own() -> None:
    p = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    y = np.array([0, 1])

    assert row_losses(CATEGORY, y, p) == pytest.approx([np.log(2), 0], abs=1e-6)
    assert row_losses(DEMAND, np.array([3.0, 1.0]), np.array([1.0, 1.0])).tolist() == [4, 0]
    assert predict_constant(CATEGORY, y, p).tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0]]
    assert {task.kind for task in TASKS} == {"binary", "graded", "multiclass"}
