"""Laws that hold for every metric of two classes: row order, undefined values, and weights."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.metrics.draws import GroupedRows, draw_grouped_rows, draw_weighted_rows
from training.metrics.calibration import calibration_error, ratio_to_observed
from training.metrics.losses import log_loss, root_mean_squared_error
from training.metrics.ranking import auc, auc_by_group, average_precision, ndcg, recall_at_fpr

Metric = Callable[[np.ndarray, np.ndarray], float]
METRICS: list[Metric] = [
    auc,
    average_precision,
    recall_at_fpr,
    log_loss,
    calibration_error,
    ratio_to_observed,
    root_mean_squared_error,
]
GROUP_METRICS: list[Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = [auc_by_group, ndcg]
WEIGHTED_METRICS: list[Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = [
    auc,
    log_loss,
    calibration_error,
    ratio_to_observed,
    root_mean_squared_error,
]


@settings(max_examples=40)
@given(draw_grouped_rows(least=2), st.randoms(use_true_random=False))
def test_no_metric_depends_on_row_order(rows: GroupedRows, rng: object) -> None:
    order = np.arange(len(rows[0]))
    rng.shuffle(order)  # type: ignore[attr-defined]
    shuffled = tuple(column[order] for column in rows)

    for metric in METRICS:
        assert metric(*rows[:2]) == pytest.approx(metric(*shuffled[:2]), nan_ok=True), metric
    for group_metric in GROUP_METRICS:
        assert group_metric(*rows) == pytest.approx(group_metric(*shuffled), nan_ok=True), group_metric


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_is_nan_without_rows_or_with_predictions_that_are_not_finite(metric: Metric) -> None:
    y, p = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.9])

    assert np.isfinite(metric(y, p))
    assert np.isnan(metric(y[:0], p[:0]))
    assert np.isnan(metric(y, np.array([0.1, np.nan, 0.9])))
    assert np.isnan(metric(y, np.array([0.1, 0.5, np.inf])))


@pytest.mark.parametrize("metric", WEIGHTED_METRICS)
def test_weights_of_one_change_nothing(metric: Callable[..., float], seed: int) -> None:
    y, p, w = draw_weighted_rows(seed)

    assert metric(y, p, np.ones_like(w)) == pytest.approx(metric(y, p), rel=1e-12)


@pytest.mark.parametrize("metric", WEIGHTED_METRICS)
def test_a_row_of_weight_three_counts_like_three_rows(metric: Callable[..., float], seed: int) -> None:
    y, p, w = draw_weighted_rows(seed)
    times = w.astype(np.int64)

    assert metric(y, p, w) == pytest.approx(metric(np.repeat(y, times), np.repeat(p, times)), rel=1e-12)


def test_weights_compensate_for_sampled_negatives(seed: int) -> None:
    # given many rows, of whose negatives one in ten is kept
    rng = np.random.default_rng(seed)
    p = rng.random(200_000) * 0.2
    y = (rng.random(len(p)) < p).astype(np.float64)
    is_kept = (y > 0) | (rng.random(len(y)) < 0.1)
    w = np.where(y > 0, 1.0, 10.0)
    metrics: list[Callable[..., float]] = [auc, log_loss, calibration_error, ratio_to_observed]

    # when metrics of the kept rows are weighted
    sampled = [metric(y[is_kept], p[is_kept], w[is_kept]) for metric in metrics]

    # then they are those of all rows
    assert sampled == pytest.approx([metric(y, p) for metric in metrics], abs=0.02)
