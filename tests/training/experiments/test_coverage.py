from itertools import combinations

import numpy as np
import pytest

from training.experiments.coverage import ArmCoverage, compare_coverage, expect_distinct


def test_the_expected_items_are_the_mean_over_all_samples_of_users() -> None:
    seen = [{"a", "b"}, {"a"}, {"c"}, {"a", "c", "d"}, set[str]()]
    counts = np.array([sum(item in items for items in seen) for item in "abcd"])

    for size in (1, 2, 3, 5):
        samples = [len(set[str]().union(*sample)) for sample in combinations(seen, size)]
        assert expect_distinct(counts, len(seen), size) == pytest.approx(np.mean(samples))


def test_arms_of_different_sizes_with_equal_lists_have_equal_coverage(seed: int) -> None:
    # given a long tail of items, and an arm with five times the users
    rng, covered = np.random.default_rng(seed), 0
    popularity = 1 / np.arange(1, 501)
    # when
    for _ in range(40):
        control_arm, variant_arm = (
            ArmCoverage(
                [f"u{number}" for number in rng.permutation(10**6)[:users]],
                [set(rng.choice(500, 5, p=popularity / popularity.sum()).tolist()) for _ in range(users)],
            )
            for users in (100, 500)
        )
        control, variant, interval = compare_coverage(control_arm, variant_arm, users=50, items=500)
        covered += interval.low <= 0 <= interval.high
        assert interval.value == pytest.approx(variant - control)
    # then
    assert covered >= 33


def test_an_arm_that_shows_more_items_has_more_coverage(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = [f"u{number}" for number in range(200)]
    few, many = (
        ArmCoverage(users, [set(map(str, rng.integers(0, items, 5).tolist())) for _ in users]) for items in (50, 400)
    )

    control, variant, interval = compare_coverage(few, many, users=100, items=1_000)
    assert 0.04 < control <= 0.05
    assert variant > 0.2
    assert interval.low > 0
