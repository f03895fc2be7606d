import numpy as np
import pytest

from training.stats.bootstrap import (
    Scheme,
    assign_cells,
    bootstrap_interval,
    first_column,
    percentile_interval,
    resample,
    t_tail_probability,
)


def test_rows_of_one_user_count_as_one_draw() -> None:
    value = np.random.default_rng(1).normal(size=(1_000, 1))

    independent = bootstrap_interval(value, np.arange(1_000), first_column)
    clustered = bootstrap_interval(np.repeat(value[:100], 10, 0), np.repeat(np.arange(100), 10), first_column)

    assert (clustered.high - clustered.low) > 2 * (independent.high - independent.low)


@pytest.mark.parametrize("scheme", ["poisson", "multinomial"])
def test_the_interval_covers_the_truth_nineteen_times_of_twenty(scheme: Scheme, seed: int) -> None:
    rng, covered = np.random.default_rng(seed), 0
    for _ in range(200):
        actual = bootstrap_interval(rng.normal(1, 2, (150, 1)) / 150, np.arange(150), first_column, scheme=scheme)
        covered += actual.low <= 1 <= actual.high

    assert 180 <= covered <= 200


def test_multinomial_draws_have_as_many_units_as_there_are(seed: int) -> None:
    counts = resample(30, 50, "multinomial", np.random.default_rng(seed))

    assert counts.shape == (50, 30)
    assert (counts.sum(1) == 30).all()


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    value = np.random.default_rng(1).normal(size=(100, 1))

    first, again, other = (
        bootstrap_interval(value, np.arange(100), first_column, seed=seed, draws=100) for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other
    assert first.value == other.value


def test_a_percentile_interval_leaves_out_a_fortieth_on_either_side() -> None:
    assert percentile_interval(0.5, np.linspace(0, 1, 1_001)) == pytest.approx((0.5, 0.025, 0.975))


def test_the_rows_of_a_user_fall_into_one_bounded_cell() -> None:
    cells = assign_cells([f"u{n % 500}" for n in range(1_000)], 40)

    assert (cells[:500] == cells[500:]).all()
    assert set(cells.tolist()) == set(range(40))


def test_the_tail_without_any_deviation_is_decided_by_the_sign() -> None:
    assert [t_tail_probability(difference, 0.0, 9) for difference in (0.1, 0.0, -0.1)] == [0, 1, 1]
    assert t_tail_probability(0.0, 1.0, 9) == pytest.approx(0.5)
