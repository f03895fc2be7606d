import numpy as np
import pytest

from contract.arrays import Floats
from training.experiments.comparison import USERS_MIN
from training.stats.bootstrap import Interval
from training.stats.confidence_sequence import ALPHA, ArmDifference, bound_mixture

DAYS = 60
USERS = 300
EXPERIMENTS = 400


def contains_zero(interval: Interval) -> bool:
    return interval.low <= 0 <= interval.high


def look_daily(rng: np.random.Generator, habits: Floats, arrivals: int, effect: float = 0.0) -> tuple[bool, bool]:
    """Whether an interval for one look, and the sequence, ever excluded 0 in 60 daily looks at users' clicks.

    `habits` (users,): the clicks of each user a day. Users come within `arrivals` days.
    """
    first_day, is_variant = rng.integers(0, arrivals, len(habits)), rng.random(len(habits)) < 0.5
    totals, first_clock, once, always = np.zeros(len(habits)), 0.0, False, False
    for day in range(DAYS):
        is_here = first_day <= day
        totals += is_here * rng.poisson(habits * (1 + effect * is_variant))
        control, variant = totals[is_here & ~is_variant], totals[is_here & is_variant]
        if min(len(control), len(variant)) < USERS_MIN:
            continue
        difference = ArmDifference.measure(control, variant)
        first_clock = first_clock or difference.clock
        once |= not contains_zero(difference.interval())
        always |= first_clock > 0 and not contains_zero(difference.sequence(first_clock))
    return once, always


@pytest.mark.parametrize(
    ("spread", "arrivals"),
    [(0.0, 1), (2.0, 1), (2.0, 30)],
    ids=["equal users", "users of different habits", "users who come within a month"],
)
def test_daily_looks_at_equal_arms_raise_a_false_alarm_in_at_most_one_of_twenty(
    spread: float, arrivals: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    alarms = np.zeros(2)
    for _ in range(EXPERIMENTS):
        habits = 0.2 * (rng.gamma(1 / spread, spread, USERS) if spread else np.ones(USERS))
        alarms += look_daily(rng, habits, arrivals)

    assert alarms[1] / EXPERIMENTS <= 0.05
    assert alarms[0] / EXPERIMENTS > 0.1  # what intervals for one look do


def test_a_difference_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    stopped = [look_daily(rng, np.full(USERS, 0.2), 1, effect=0.3)[1] for _ in range(20)]

    assert all(stopped)


def test_the_sequence_is_wider_than_an_interval_for_one_look(seed: int) -> None:
    control, variant = np.random.default_rng(seed).normal(size=(2, 1_000))
    difference = ArmDifference.measure(control, variant)
    once = difference.interval()

    for first_clock in difference.clock / np.array([1, 10, 160, 1_000, 10_000]):
        always = difference.sequence(first_clock)
        assert always.low < once.low < once.value < once.high < always.high


def test_the_bound_is_crossed_by_a_random_walk_in_at_most_one_of_twenty(seed: int) -> None:
    steps = np.random.default_rng(seed).normal(size=(1_000, 2_000))
    walks = np.abs(np.cumsum(steps, 1))
    bounds = np.array([bound_mixture(clock, 50.0) for clock in range(1, 2_001)])

    assert (walks > bounds).any(1).mean() <= ALPHA
    assert (walks > 1.96 * np.sqrt(np.arange(1, 2_001))).any(1).mean() > 0.3


def test_the_difference_is_of_means_with_their_variances() -> None:
    difference = ArmDifference.measure(np.array([0.0, 2.0]), np.array([3.0, 5.0, 7.0]))

    assert difference.value == 4
    assert difference.variance == pytest.approx(2 / 2 + 4 / 3)
    assert difference.users == pytest.approx(6 / 5)
