"""Ranking metrics equal scikit-learn's, or a plain slow definition, on predictions with many ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score, roc_curve

from tests.training.metrics.draws import GroupedRows, draw_grouped_rows, draw_weighted_rows
from training.metrics import ranking
from training.metrics.ranking import RankedRows


def has_both_classes(y: np.ndarray) -> bool:
    return bool(0 < y.sum() < len(y))


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_auc_and_average_precision_equal_those_of_scikit_learn(rows: GroupedRows) -> None:
    y, p, _ = rows

    if has_both_classes(y):
        assert ranking.auc(y, p) == pytest.approx(roc_auc_score(y, p))
        assert ranking.average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    else:
        assert np.isnan(ranking.auc(y, p))
        assert np.isnan(ranking.average_precision(y, p)) == (y.sum() == 0)


def test_weighted_auc_equals_that_of_scikit_learn(seed: int) -> None:
    y, p, w = draw_weighted_rows(seed)

    assert ranking.auc(y, p, w) == pytest.approx(roc_auc_score(y, p, sample_weight=w))


def test_a_label_between_0_and_1_counts_as_a_share_of_a_positive() -> None:
    soft = ranking.auc(np.array([0.3, 1.0]), np.array([0.1, 0.2]))

    split = ranking.auc(np.array([1, 0, 1.0]), np.array([0.1, 0.1, 0.2]), np.array([0.3, 0.7, 1.0]))
    assert soft == pytest.approx(split)


@settings(max_examples=40)
@given(draw_grouped_rows(), st.sampled_from([0.0, 0.01, 0.2, 1.0]))
def test_recall_is_the_best_point_of_the_roc_curve_within_the_false_positive_rate(
    rows: GroupedRows, rate: float
) -> None:
    y, p, _ = rows
    actual = ranking.recall_at_fpr(y, p, rate)

    if not has_both_classes(y):
        assert np.isnan(actual)
        return
    false_positives, recall, _ = roc_curve(y, p, drop_intermediate=False)
    assert actual == pytest.approx(recall[false_positives <= rate + 1e-12].max())


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_grouped_auc_is_the_mean_auc_of_users_weighted_by_rows(rows: GroupedRows) -> None:
    y, p, user = rows
    aucs = [
        (roc_auc_score(y[user == u], p[user == u]), (user == u).sum())
        for u in set(user)
        if has_both_classes(y[user == u])
    ]

    actual = ranking.auc_by_group(y, p, user)

    expected = sum(value * n for value, n in aucs) / sum(n for _, n in aucs) if aucs else np.nan
    assert actual == pytest.approx(expected, nan_ok=True)


@settings(max_examples=40)
@given(draw_grouped_rows())
def test_ndcg_is_the_mean_over_queries_with_a_relevant_result(rows: GroupedRows) -> None:
    y, p, query = rows
    values = [query_ndcg(y[query == q], p[query == q]) for q in set(query) if y[query == q].any()]

    assert ranking.ndcg(y, p, query) == pytest.approx(np.mean(values) if values else np.nan, nan_ok=True)


def query_ndcg(y: np.ndarray, p: np.ndarray) -> float:
    """NDCG of one query; scikit-learn requires two documents."""
    return float(ndcg_score([y], [p], k=10)) if len(y) > 1 else 1.0


def test_rows_sorted_once_give_the_metrics_of_every_weighting(seed: int) -> None:
    y, p, _ = draw_weighted_rows(seed)
    ranked, rng = RankedRows(y, p), np.random.default_rng(seed)

    for _ in range(3):
        w = rng.integers(0, 4, len(y))
        repeated = np.repeat(np.arange(len(y)), w)
        assert ranked.aucs(w)[0] == pytest.approx(ranking.auc(y[repeated], p[repeated]))
        assert ranked.recall_at_fpr(w) == pytest.approx(ranking.recall_at_fpr(y[repeated], p[repeated]))


def test_a_threshold_flags_predictions_at_and_above_it() -> None:
    y, p, w = np.array([1, 1, 0, 0.0]), np.array([0.3, 0.2, 0.3, 0.1]), np.array([1, 3, 2, 2.0])

    recall, false_positives = ranking.rates_at_threshold(y, p, w, 0.3)

    assert (recall, false_positives) == (0.25, 0.5)


def test_recall_at_k_counts_positives_among_the_first_of_their_list() -> None:
    # given two lists of three: the best item of the first was clicked, and the worst of the second
    y, group = np.array([1, 0, 0, 0, 0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.5, 0.1, 0.8, 0.7, 0.6])

    recalls = [ranking.recall_at_k(y, p, np.ones(6), group, k) for k in (1, 2, 3)]

    assert recalls[:2] == [0.5, 0.5]
    assert np.isnan(recalls[2])  # lists of three are left out of recall at 3


def test_recall_at_k_ranks_items_behind_negatives_that_sampling_removed() -> None:
    # given a click behind one sampled negative that stands for ten
    y, p, w = np.array([0, 1.0]), np.array([0.9, 0.5]), np.array([10, 1.0])

    assert ranking.recall_at_k(y, p, w, np.zeros(2, np.int64), 10) == 0
    assert ranking.recall_at_k(y, p, np.array([9, 2.0]), np.zeros(2, np.int64), 10) == 1


def test_undefined_metrics_of_groups_and_thresholds_are_nan() -> None:
    zeros, p, query = np.zeros(3), np.array([0.1, 0.5, 0.9]), np.array(["a", "a", "b"], object)

    assert np.isnan(ranking.ndcg(zeros, p, query))
    assert np.isnan(ranking.auc_by_group(zeros, p, query))
    assert np.isnan(ranking.ndcg(zeros[:0], p[:0], query[:0]))
    assert np.isnan(ranking.auc(zeros, p, np.ones(3)))
    assert np.isnan(ranking.rates_at_threshold(zeros, p, np.ones(3), 0.5)[0])
