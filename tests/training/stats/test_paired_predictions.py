import numpy as np
import pytest

from tests.model.small import CLICK
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.data.users import index_users
from training.metrics.calibration import calibration_error
from training.metrics.losses import log_loss
from training.stats.paired_predictions import PairedLosses, PairedPredictions

ROWS = 400


def make_clicks(rows: int = ROWS) -> Examples:
    examples = make_examples(300, 3)
    return examples.take(np.resize(np.flatnonzero(examples.has_label(CLICK)), rows))


def draw_predictions(seed: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.05, 0.95, rows).astype(np.float32)


def make_pairs(old: np.ndarray, new: np.ndarray, examples: Examples | None = None) -> PairedLosses:
    clicks = examples or make_clicks(len(old))
    return PairedPredictions("recent", clicks, {"click": old}, {"click": new}).pair_losses(CLICK)


def test_equal_predictions_lose_exactly_nothing() -> None:
    pairs = make_pairs(draw_predictions(1), draw_predictions(1))

    for interval in (pairs.gain_lost(), pairs.level_error_increase(), pairs.calibration_error_increase()):
        assert interval == (0, 0, 0)


def test_the_lost_gain_is_the_increase_of_the_log_loss_relative_to_a_constant() -> None:
    examples, old, new = make_clicks(), draw_predictions(1), draw_predictions(2)
    y = examples.labels["click"]

    actual = make_pairs(old, new, examples).gain_lost()

    expected = (log_loss(y, new) - log_loss(y, old)) / log_loss(y, np.full(len(y), y.mean()))
    assert actual.value == pytest.approx(expected, abs=1e-5)
    assert actual.low < actual.value < actual.high


def test_the_calibration_error_is_that_of_the_metric() -> None:
    examples, old, new = make_clicks(), draw_predictions(1), draw_predictions(1) ** 2
    y = examples.labels["click"]

    actual = make_pairs(old, new, examples).calibration_error_increase()

    assert actual.value == pytest.approx(calibration_error(y, new) - calibration_error(y, old), abs=1e-6)


def test_the_level_error_is_how_much_further_off_the_sums_are() -> None:
    examples = make_clicks()
    rate = examples.labels["click"].mean()
    old, new = np.full(ROWS, rate, np.float32), np.full(ROWS, 1.3 * rate, np.float32)

    actual = make_pairs(old, new, examples).level_error_increase()

    assert actual.value == pytest.approx(0.3, abs=1e-3)
    assert actual.high > 0.3 > actual.low


def test_a_model_that_changes_little_has_a_narrow_interval() -> None:
    old = draw_predictions(1)

    little, much = make_pairs(old, 0.99 * old).gain_lost(), make_pairs(old, draw_predictions(2)).gain_lost()

    assert little.high - little.low < (much.high - much.low) / 8


def test_rows_without_a_user_are_users_of_their_own() -> None:
    examples = make_examples(50, 1)
    examples.user_id[:10] = ""

    actual = index_users(examples)

    assert len(set(actual[:10].tolist())) == 10
    assert len(set(actual.tolist())) == 10 + len(set(examples.user_id[10:].tolist()))


def test_users_of_different_sets_count_as_different_users() -> None:
    pairs = make_pairs(draw_predictions(1), draw_predictions(2))

    both = PairedLosses.concatenate([pairs, pairs])

    assert len(both) == 2 * len(pairs)
    assert len(set(both.user.tolist())) == 2 * len(set(pairs.user.tolist()))
    assert both.gain_lost().value == pytest.approx(pairs.gain_lost().value)
