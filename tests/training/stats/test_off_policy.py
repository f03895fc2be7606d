import numpy as np
import pytest

from contract.arrays import Floats
from training.stats.off_policy import (
    WeightedRewards,
    estimate_dr,
    estimate_ips,
    estimate_mean,
    estimate_mean_weight,
    estimate_snips,
)

LOGGED = np.array([0.5, 0.3, 0.2])
TARGET = np.array([0.1, 0.2, 0.7])
REWARD = np.array([0.1, 0.3, 0.6])
TRUTH = float(TARGET @ REWARD)


def draw_rows(rng: np.random.Generator, rows: int) -> tuple[WeightedRewards, Floats]:
    """Rows of a policy with three actions, and the action of each."""
    action = rng.choice(3, rows, p=LOGGED)
    reward = (rng.random(rows) < REWARD[action]).astype(np.float64)
    weight = TARGET[action] / LOGGED[action]
    return WeightedRewards(reward, weight, np.arange(rows), np.ones(rows)), action.astype(np.float64)


def test_the_policy_that_served_earns_what_was_logged(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward = rng.random(100)
    rows = WeightedRewards(reward, np.ones(100), np.arange(100), np.ones(100))
    logged = estimate_mean(reward)

    for estimate in (estimate_ips(rows), estimate_snips(rows), estimate_dr(rows, reward / 2, reward / 2)):
        assert estimate.value == pytest.approx(logged.value)
        assert estimate.minus(logged).interval(rows.unit) == pytest.approx((0, 0, 0), abs=1e-12)


def test_rewards_weighted_by_inverse_propensity_have_no_bias() -> None:
    # each action once, each as often as the policy that served chooses it
    counts = (LOGGED * 10).astype(int)
    action = np.repeat(np.arange(3), counts)
    rows = WeightedRewards(REWARD[action], (TARGET / LOGGED)[action], np.arange(10), np.ones(10))

    assert estimate_ips(rows).value == pytest.approx(TRUTH)
    assert estimate_mean_weight(rows).value == pytest.approx(1)
    assert estimate_snips(rows).value == pytest.approx(TRUTH)


def test_a_constant_added_to_all_rewards_moves_the_self_normalised_estimate_alone_by_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = WeightedRewards(rng.random(200), 1.1 + rng.random(200), np.arange(200), np.ones(200))
    raised = WeightedRewards(rows.reward + 1, rows.weight, rows.unit, rows.exposure)

    assert estimate_snips(raised).value == pytest.approx(estimate_snips(rows).value + 1)
    assert estimate_ips(raised).value != pytest.approx(estimate_ips(rows).value + 1)


def test_a_doubly_robust_estimate_is_right_if_either_the_model_or_the_propensities_are(seed: int) -> None:
    rows, action = draw_rows(np.random.default_rng(seed), 200_000)
    right, wrong = REWARD[action.astype(int)], np.full(len(rows), 0.9)
    wrong_weights = WeightedRewards(rows.reward, rows.weight * 3, rows.unit, rows.exposure)
    wrong_expected = np.full(len(rows), 0.9)

    assert estimate_dr(rows, wrong, wrong_expected).value == pytest.approx(TRUTH, abs=0.02)
    assert estimate_dr(wrong_weights, right, np.full(len(rows), TRUTH)).value == pytest.approx(TRUTH, abs=0.03)
    assert abs(estimate_ips(wrong_weights).value - TRUTH) > 0.2


def test_intervals_cover_the_truth_nineteen_times_of_twenty(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covered = np.zeros(3)
    for _ in range(300):
        rows, action = draw_rows(rng, 400)
        model = REWARD[action.astype(int)]
        estimates = (estimate_ips(rows), estimate_snips(rows), estimate_dr(rows, model, np.full(len(rows), TRUTH)))
        for number, estimate in enumerate(estimates):
            interval = estimate.interval(rows.unit)
            covered[number] += interval.low <= TRUTH <= interval.high

    assert ((covered >= 270) & (covered <= 298)).all()


def test_rows_of_one_unit_count_as_one(seed: int) -> None:
    reward = np.random.default_rng(seed).random(50)
    alone = estimate_mean(reward).interval(np.arange(50))
    repeated = estimate_mean(np.repeat(reward, 10)).interval(np.repeat(np.arange(50), 10))

    assert repeated == pytest.approx(alone)


def test_one_unit_has_no_interval() -> None:
    assert estimate_mean(np.ones(3)).interval(np.zeros(3, np.int64)) == (1, -np.inf, np.inf)


def test_a_place_that_is_rarely_noticed_counts_by_its_exposure() -> None:
    # two items that were shown at places with exposures 1 and 0.5, and change places
    exposure, relevance = np.array([1.0, 0.5]), np.array([0.2, 0.6])
    weight = exposure[::-1] / exposure
    rows = WeightedRewards(exposure * relevance, weight, np.arange(2), exposure)

    assert estimate_mean_weight(rows).value == pytest.approx(1)
    assert estimate_snips(rows).value == pytest.approx((exposure[::-1] @ relevance) / 2)
