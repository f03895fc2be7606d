import numpy as np
import pytest

from contract.arrays import Floats
from training.stats.off_policy import WeightedRewards
from training.stats.overlap import Overlap, OverlapLimits, count_effective, find_missing_overlap, measure_overlap

LIMITS = OverlapLimits()


def measure(weight: Floats, *, reward: float = 1.0, unknown: int = 0, uncovered: float | None = None) -> Overlap:
    rows = WeightedRewards(np.full(len(weight), reward), weight, np.arange(len(weight)), np.ones(len(weight)))
    return measure_overlap(rows, unknown=unknown, uncovered=uncovered)


def test_equal_weights_are_worth_their_number_and_one_weight_one() -> None:
    assert count_effective(np.full(7, 3.0)) == pytest.approx(7)
    assert count_effective(np.array([0, 5, 0.0])) == pytest.approx(1)
    assert count_effective(np.zeros(3)) == 0


def test_logs_of_the_same_policy_are_accepted() -> None:
    assert list(find_missing_overlap(measure(np.ones(1_000), uncovered=0.0), LIMITS)) == []


@pytest.mark.parametrize(
    ("overlap", "reason"),
    [
        (measure(np.ones(1_000), unknown=100), "should lack a propensity above 0. Found 9.1%"),
        (measure(np.ones(1_000), uncovered=0.1), "Found 10.0% with a propensity of 0 or an unknown one"),
        (measure(np.tile([1.4, 0.0], 1_000)), "the logs lack choices of the new policy. Found 0.7"),
        (measure(np.full(1_000, 1.5)), "propensities or the new policy's are wrong. Found 1.5"),
        (measure(np.ones(100)), "worth 200 equal units. Found 100.0 of 100"),
        (measure(np.append(np.ones(1_000), 90.0)), "at most 2.0% of the weight. Found 8.3%; the largest weight is 90"),
        (measure(np.ones(1_000), reward=0.0), "worth 20 equal ones. Found 0.0"),
    ],
    ids=["unknown", "uncovered", "missing mass", "wrong propensities", "few units", "one unit", "no rewards"],
)
def test_missing_overlap_is_refused_with_what_was_found(overlap: Overlap, reason: str) -> None:
    assert any(reason in sentence for sentence in find_missing_overlap(overlap, LIMITS))


def test_rows_of_one_unit_weigh_together() -> None:
    rows = WeightedRewards(np.ones(400), np.ones(400), np.repeat(np.arange(4), 100), np.ones(400))
    overlap = measure_overlap(rows)

    assert (overlap.units, overlap.unit_share_max) == (4, 0.25)
    assert overlap.effective_units == pytest.approx(4)
