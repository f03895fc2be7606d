import numpy as np
import pytest

from contract.tasks import Task
from tests.model.small import CLICK, PURCHASE
from training.metrics.losses import row_log_losses
from training.stats.paired_loss import CELLS_MIN, LossDifferences, compare_losses, measure_excess_loss

CLICK_WEIGHT = {"click": 1.0}


def make_pairs(rows: int, users: int, seed: int, shrink: float = 0.0, task: Task = CLICK) -> LossDifferences:
    """Two models with equal errors; the candidate's predictions are moved towards a half by `shrink`."""
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) * 0.8 + 0.1
    y = (rng.random(rows) < truth).astype(np.float64)
    candidate, baseline = (np.clip(truth + rng.normal(0, 0.05, rows), 0.01, 0.99) for _ in range(2))
    user_ids = [f"u{n % users}" for n in range(rows)]
    pairs = compare_losses(task, y, np.ones(rows), user_ids, candidate + shrink * (0.5 - candidate), baseline)
    assert pairs is not None
    return pairs


def test_the_lost_gain_is_the_difference_of_losses_relative_to_the_best_constant(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, candidate, baseline = (rng.random((3, 500)) * 0.98 + 0.01).round(2)
    y = (y > 0.5).astype(np.float64)
    w = rng.integers(1, 4, 500).astype(np.float64)

    pairs = compare_losses(CLICK, y, w, [f"u{n}" for n in range(500)], candidate, baseline)
    assert pairs is not None
    actual = measure_excess_loss({"click": pairs}, CLICK_WEIGHT, 0.0)

    assert actual is not None
    mean = np.average(y, weights=w)
    constant = np.average(row_log_losses(y, np.full(500, mean)), weights=w)
    expected = np.average(row_log_losses(y, candidate) - row_log_losses(y, baseline), weights=w) / constant
    assert actual.gain_lost == pytest.approx(expected)
    assert actual.rows == 500


def test_a_worse_model_is_distinguished_from_an_equal_one(seed: int) -> None:
    equal, worse = (
        measure_excess_loss({"click": make_pairs(3_000, 200, seed, shrink)}, CLICK_WEIGHT, 0.02)
        for shrink in (0.0, 0.9)
    )

    assert equal is not None
    assert worse is not None
    assert equal.p > 0.5
    assert worse.p < 1e-6
    assert worse.gain_lost > 0.05 > abs(equal.gain_lost)


def test_rows_of_few_users_prove_less_than_rows_of_many(seed: int) -> None:
    # given losses that are equal within a user
    rng = np.random.default_rng(seed)
    difference = np.repeat(rng.normal(0.02, 0.2, 50), 40)
    clustered = LossDifferences(difference, np.ones(2_000), np.repeat(np.arange(50), 40), 1.0)
    independent = LossDifferences(difference, np.ones(2_000), np.arange(2_000) % 1_000, 1.0)

    few, many = (measure_excess_loss({"click": pairs}, CLICK_WEIGHT, 0.0) for pairs in (clustered, independent))

    assert few is not None
    assert many is not None
    assert few.gain_lost == pytest.approx(many.gain_lost)
    assert abs(few.p - 0.5) < abs(many.p - 0.5)


def test_several_tasks_are_averaged_by_their_weights(seed: int) -> None:
    parts = {"click": make_pairs(1_000, 100, seed, 0.9), "purchase": make_pairs(1_000, 100, seed + 1, task=PURCHASE)}
    single = {name: measure_excess_loss({name: pairs}, {name: 1.0}, 0.0) for name, pairs in parts.items()}

    both = measure_excess_loss(parts, {"click": 3.0, "purchase": 1.0}, 0.0)

    assert both is not None
    lost = [loss.gain_lost for loss in single.values() if loss]
    assert both.gain_lost == pytest.approx((3 * lost[0] + lost[1]) / 4)


def test_too_few_users_or_equal_labels_give_no_result() -> None:
    assert measure_excess_loss({"click": make_pairs(1_000, CELLS_MIN - 1, 1)}, CLICK_WEIGHT, 0.0) is None
    assert measure_excess_loss({"click": make_pairs(1_000, 100, 1)}, {"click": 0.0}, 0.0) is None
    assert compare_losses(CLICK, np.zeros(9), np.ones(9), ["u"] * 9, np.full(9, 0.1), np.full(9, 0.2)) is None
