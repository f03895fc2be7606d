import numpy as np
import pytest

from model.feature_statistics import compute_first_biases, measure, measure_number
from tests.model.small import (
    CATEGORY,
    CLASSES,
    CLICK,
    DEMAND,
    FEATURES,
    GROUPS,
    PURCHASE,
    TASKS,
    draw_blocks,
    draw_labels,
)


def make_column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_mean_and_deviation_use_finite_values() -> None:
    actual = measure_number(make_column(1, 2, 3, np.nan, np.inf, -np.inf))

    assert (actual.low, actual.high, actual.logarithmic) == (1, 3, False)
    assert (actual.mean, actual.deviation) == pytest.approx((2, np.sqrt(2 / 3)))


def test_an_outlier_does_not_set_the_bounds(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0, 1, 1_000).astype(np.float32)

    actual = measure_number(np.append(values, np.float32(1e30)))

    assert actual.high < 10


def test_rare_counts_are_not_clipped() -> None:
    actual = measure_number(make_column(*[0.0] * 10_000, 1.0, 2.0))

    assert actual.high == 2


def test_only_skewed_numbers_get_a_logarithm(seed: int) -> None:
    rng = np.random.default_rng(seed)

    assert measure_number(rng.lognormal(3, 2, 1_000).astype(np.float32)).logarithmic
    assert not measure_number(rng.normal(3, 2, 1_000).astype(np.float32)).logarithmic


@pytest.mark.parametrize("values", [make_column(), make_column(np.nan, np.inf), make_column(5, 5, 5)])
def test_a_constant_or_unknown_number_has_deviation_1(values: np.ndarray) -> None:
    assert measure_number(values).deviation == 1


def test_vocabularies_have_the_repeated_ids_within_the_limit(seed: int) -> None:
    blocks, labels = draw_blocks(300, seed), draw_labels(300, seed)

    wide = measure(FEATURES, blocks, labels, TASKS, CLASSES, 16_384).known
    narrow = measure(FEATURES, blocks, labels, TASKS, CLASSES, 32).known

    ids, times = np.unique(blocks["item"].ids[:, 0], return_counts=True)
    assert (
        wide["item"].rows == 1 + 1 + (times[ids != 0] > 1).sum()
    )  # absent, out-of-vocabulary, and ids seen more than once
    assert {known.rows for known in narrow.values()} == {32}


def test_texts_share_one_embedding_table(seed: int) -> None:
    rows = measure(FEATURES, draw_blocks(9, seed), draw_labels(9, seed), TASKS, CLASSES, 64).known

    assert set(rows) == {"recent", "surface", "payment", "item", "kind", "text"}


def test_initial_biases_are_base_rates() -> None:
    labels = {
        "click": make_column(1, 1, 0, 0, np.nan),
        "purchase": make_column(1, 0, 0, 0, np.nan),
        "category": np.array([0, 0, 0, 1, -1]),
        "demand": make_column(7, 9, 8, 8, np.nan),
    }

    start = compute_first_biases((CLICK, PURCHASE, CATEGORY, DEMAND), labels, CLASSES)

    assert start["click"] == pytest.approx((0.0,))
    assert start["purchase"] == pytest.approx((0.0,))  # half of what was clicked
    assert np.exp(start["category"]) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert start["demand"] == (0.0,)


def test_each_group_has_the_statistics_of_its_numbers(seed: int) -> None:
    numbers = measure(FEATURES, draw_blocks(50, seed), draw_labels(50, seed), TASKS, CLASSES, 64).numbers

    assert {group: len(columns) for group, columns in numbers.items()} == {g: len(FEATURES.numbers(g)) for g in GROUPS}


def test_bins_have_edges_even_if_most_values_are_equal() -> None:
    actual = measure_number(make_column(*[0.0] * 1_000, *range(1, 101)), bins=8)

    assert actual.bins[0] == 0
    assert actual.bins[-1] == actual.high
    assert len(actual.bins) >= 5
    assert sorted(set(actual.bins)) == list(actual.bins)


@pytest.mark.parametrize("values", [make_column(), make_column(np.nan), make_column(5, 5, 5)])
def test_a_constant_or_unknown_number_has_no_bins(values: np.ndarray) -> None:
    assert measure_number(values, bins=8).bins == ()
