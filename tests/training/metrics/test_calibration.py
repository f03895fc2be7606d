from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from tests.training.metrics.draws import GroupedRows, draw_grouped_rows
from training.metrics.calibration import (
    BINS,
    assign_bins,
    calibration_error,
    ratio_to_observed,
    reliability_bins,
    to_top_class,
)


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_bins_hold_every_row_once_and_ties_together(rows: GroupedRows) -> None:
    y, p, _ = rows

    predicted, observed, count = reliability_bins(y, p)

    assert count.sum() == len(y)
    assert predicted @ count == pytest.approx(p.sum(), rel=1e-5)
    assert observed @ count == pytest.approx(y.sum())
    edges = np.concatenate([[0], np.cumsum(count)])
    parts = [set(np.sort(p)[a:b].tolist()) for a, b in pairwise(edges)]
    assert all(part.isdisjoint(following) for part, following in pairwise(parts))


def test_calibration_error_is_the_mean_gap_of_predicted_and_observed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.permutation(1_000) / 1_000
    y = (rng.random(1_000) < p).astype(np.float32)
    order = np.argsort(p)

    gaps = [abs(y[rows].mean() - p[rows].mean()) for rows in np.array_split(order, 10)]

    assert calibration_error(y, p) == pytest.approx(np.mean(gaps))
    assert calibration_error(np.array([0.0, 1.0] * 50), np.full(100, 0.9)) == pytest.approx(0.4)


def test_split_ties_gives_bins_of_equal_size_in_row_order() -> None:
    tied = assign_bins(np.full(25, 0.5), split_ties=True)

    assert np.bincount(tied, minlength=BINS).max() - np.bincount(tied, minlength=BINS).min() <= 1
    assert (np.diff(tied) >= 0).all()
    assert len(set(assign_bins(np.full(25, 0.5)))) == 1


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_predicted_to_observed_is_the_ratio_of_the_means(rows: GroupedRows) -> None:
    y, p, _ = rows

    assert ratio_to_observed(y, p) == pytest.approx(p.mean() / y.mean() if y.any() else np.nan, nan_ok=True)


def test_predicted_to_observed_is_nan_without_positives() -> None:
    assert np.isnan(ratio_to_observed(np.zeros(3), np.full(3, 0.1), np.ones(3)))


def test_top_class_is_the_likeliest_one_and_whether_it_was_right() -> None:
    right, p = to_top_class(np.array([0, 0]), np.array([[0.7, 0.3], [0.4, 0.6]]))

    assert right.tolist() == [1, 0]
    assert p.tolist() == [0.7, 0.6]
