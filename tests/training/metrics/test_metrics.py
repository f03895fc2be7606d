"""Each figure equals scikit-learn's, or a plain slow definition, on drawn labels and predictions full of ties."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    ndcg_score,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)

from training.metrics import metrics

DrawnPredictions = tuple[np.ndarray, np.ndarray, np.ndarray]  # labels, predictions, groups


@st.composite
def draw_predictions(draw: st.DrawFn, least: int = 1) -> DrawnPredictions:
    """Labels of 0 and 1, predictions of few distinct values, and a group for each row."""
    n = draw(st.integers(least, 40))
    y = draw(arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])))
    p = draw(arrays(np.float32, n, elements=st.integers(1, 12).map(lambda value: value / 16)))
    return y, p, draw(arrays(np.int64, n, elements=st.integers(0, 4))).astype(str).astype(object)


@st.composite
def draw_classes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    n = draw(st.integers(1, 30))
    y = draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    p = draw(arrays(np.float64, (n, 4), elements=st.floats(0.01, 1)))
    return y, p / p.sum(1, keepdims=True)


def has_both_classes(y: np.ndarray) -> bool:
    return bool(0 < y.sum() < len(y))


@settings(max_examples=40)
@given(draw_predictions())
def test_the_figures_of_two_classes_are_those_of_scikit_learn(rows: DrawnPredictions) -> None:
    y, p, _ = rows

    assert metrics.log_loss(y, p) == pytest.approx(log_loss(y, p.astype(np.float64), labels=[0, 1]))
    if has_both_classes(y):
        assert metrics.auc(y, p) == pytest.approx(roc_auc_score(y, p))
        assert metrics.average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    else:
        assert np.isnan(metrics.auc(y, p))
        assert np.isnan(metrics.average_precision(y, p)) == (y.sum() == 0)


@settings(max_examples=40)
@given(draw_predictions(), st.sampled_from([0.0, 0.01, 0.2, 1.0]))
def test_recall_is_the_best_that_the_curve_allows_at_that_rate_of_false_positives(
    rows: DrawnPredictions, rate: float
) -> None:
    y, p, _ = rows
    actual = metrics.recall_at_fpr(y, p, rate)

    if not has_both_classes(y):
        assert np.isnan(actual)
        return
    false_positives, recall, _ = roc_curve(y, p, drop_intermediate=False)
    assert actual == pytest.approx(recall[false_positives <= rate + 1e-12].max())


@settings(max_examples=40)
@given(draw_predictions())
def test_grouped_auc_is_the_mean_of_the_users_that_have_one_weighted_by_rows(rows: DrawnPredictions) -> None:
    y, p, user = rows
    each = [
        (roc_auc_score(y[user == u], p[user == u]), (user == u).sum())
        for u in set(user)
        if has_both_classes(y[user == u])
    ]

    actual = metrics.grouped_auc(y, p, user)

    expected = sum(value * n for value, n in each) / sum(n for _, n in each) if each else np.nan
    assert actual == pytest.approx(expected, nan_ok=True)


@settings(max_examples=40)
@given(draw_predictions())
def test_ndcg_is_the_mean_of_the_queries_that_have_something_relevant(rows: DrawnPredictions) -> None:
    y, p, query = rows
    each = [query_ndcg(y[query == q], p[query == q]) for q in set(query) if y[query == q].any()]

    assert metrics.ndcg(y, p, query) == pytest.approx(np.mean(each) if each else np.nan, nan_ok=True)


def query_ndcg(y: np.ndarray, p: np.ndarray) -> float:
    """Of one query; scikit-learn wants two documents."""
    return float(ndcg_score([y], [p], k=10)) if len(y) > 1 else 1.0


@settings(max_examples=40)
@given(draw_classes())
def test_figures_of_classes_are_those_of_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows

    assert metrics.log_loss(y, p) == pytest.approx(log_loss(y, p, labels=[0, 1, 2, 3]))
    assert metrics.macro_f1(y, p) == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
    assert metrics.accuracy(y, p) == pytest.approx((p.argmax(1) == y).mean())


@settings(max_examples=40)
@given(draw_predictions())
def test_the_bins_of_calibration_hold_every_row_once_and_equal_predictions_together(rows: DrawnPredictions) -> None:
    y, p, _ = rows

    predicted, observed, count = metrics.reliability_bins(y, p)

    assert count.sum() == len(y)
    assert predicted @ count == pytest.approx(p.sum(), rel=1e-5)
    assert observed @ count == pytest.approx(y.sum())
    edges = np.concatenate([[0], np.cumsum(count)])
    parts = [set(np.sort(p)[a:b].tolist()) for a, b in pairwise(edges)]
    assert all(one.isdisjoint(other) for one, other in pairwise(parts))


def test_calibration_error_is_the_gap_of_predicted_and_observed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.permutation(1_000) / 1_000
    y = (rng.random(1_000) < p).astype(np.float32)
    order = np.argsort(p)

    parts = [abs(y[rows].mean() - p[rows].mean()) for rows in np.array_split(order, 10)]

    assert metrics.calibration_error(y, p) == pytest.approx(np.mean(parts))
    assert metrics.calibration_error(np.array([0.0, 1.0] * 50), np.full(100, 0.9)) == pytest.approx(0.4)


@settings(max_examples=40)
@given(draw_predictions())
def test_predicted_to_observed_is_the_ratio_of_their_means(rows: DrawnPredictions) -> None:
    y, p, _ = rows

    assert metrics.predicted_to_observed(y, p) == pytest.approx(p.mean() / y.mean() if y.any() else np.nan, nan_ok=True)


@settings(max_examples=40)
@given(draw_predictions(least=2), st.randoms(use_true_random=False))
def test_no_figure_depends_on_the_order_of_rows(rows: DrawnPredictions, chance: object) -> None:
    order = np.arange(len(rows[0]))
    chance.shuffle(order)  # type: ignore[attr-defined]
    shuffled = tuple(column[order] for column in rows)

    for figure in OF_TWO:
        assert figure(*rows[:2]) == pytest.approx(figure(*shuffled[:2]), nan_ok=True), figure.__name__
    for grouped in OF_GROUPS:
        assert grouped(*rows) == pytest.approx(grouped(*shuffled), nan_ok=True), grouped.__name__


OF_TWO: list[Callable[[np.ndarray, np.ndarray], float]] = [
    metrics.auc,
    metrics.average_precision,
    metrics.recall_at_fpr,
    metrics.log_loss,
    metrics.calibration_error,
    metrics.predicted_to_observed,
    metrics.root_mean_squared_error,
]
OF_GROUPS: list[Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = [metrics.grouped_auc, metrics.ndcg]


@pytest.mark.parametrize("figure", OF_TWO)
def test_a_figure_without_meaning_is_nan(figure: Callable[[np.ndarray, np.ndarray], float]) -> None:
    y, p = np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.5, 0.9])

    assert np.isfinite(figure(y, p))
    assert np.isnan(figure(y[:0], p[:0]))
    assert np.isnan(figure(y, np.array([0.1, np.nan, 0.9])))
    assert np.isnan(figure(y, np.array([0.1, 0.5, np.inf])))


def test_a_figure_of_groups_without_meaning_is_nan() -> None:
    zeros, p, query = np.zeros(3), np.array([0.1, 0.5, 0.9]), np.array(["a", "a", "b"], object)

    assert np.isnan(metrics.ndcg(zeros, p, query))
    assert np.isnan(metrics.grouped_auc(zeros, p, query))
    assert np.isnan(metrics.ndcg(zeros[:0], p[:0], query[:0]))


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinity() -> None:
    assert 10 < metrics.log_loss(np.ones(1), np.zeros(1)) < 20


def test_the_root_of_the_mean_square_is_in_the_units_of_the_labels(seed: int) -> None:
    y, p = np.random.default_rng(seed).normal(100, 20, (2, 50))

    assert metrics.root_mean_squared_error(np.array([1.0, 5.0]), np.array([4.0, 1.0])) == pytest.approx(np.sqrt(12.5))
    assert metrics.root_mean_squared_error(y, p) == pytest.approx(root_mean_squared_error(y, p))
