import numpy as np
import pytest

from training.metrics import metrics, weighted

FIGURES = ("auc", "log_loss", "calibration_error", "predicted_to_observed")


def draw_weighted(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions with many ties, and whole weights."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(rows), 2)
    return (rng.random(rows) < p).astype(np.float64), p, rng.integers(1, 5, rows).astype(np.float64)


@pytest.mark.parametrize("figure", FIGURES)
def test_rows_of_weight_one_give_the_figure_without_weights(figure: str, seed: int) -> None:
    y, p, w = draw_weighted(seed)

    actual = getattr(weighted, figure)(y, p, np.ones_like(w))

    assert actual == pytest.approx(getattr(metrics, figure)(y, p), rel=1e-12)


@pytest.mark.parametrize("figure", FIGURES)
def test_a_row_of_weight_three_counts_like_three_rows(figure: str, seed: int) -> None:
    y, p, w = draw_weighted(seed)
    times = w.astype(np.int64)

    actual = getattr(weighted, figure)(y, p, w)

    assert actual == pytest.approx(getattr(metrics, figure)(np.repeat(y, times), np.repeat(p, times)), rel=1e-12)


def test_negatives_that_were_left_out_at_random_are_made_up_for_by_weights(seed: int) -> None:
    # Given many rows, of whose negatives one in ten is kept
    rng = np.random.default_rng(seed)
    p = rng.random(200_000) * 0.2
    y = (rng.random(len(p)) < p).astype(np.float64)
    kept = (y > 0) | (rng.random(len(y)) < 0.1)
    w = np.where(y > 0, 1.0, 10.0)

    # When figures are taken of what was kept, with weights
    of_kept = [getattr(weighted, figure)(y[kept], p[kept], w[kept]) for figure in FIGURES]

    # Then they are those of all rows
    whole = [getattr(metrics, figure)(y, p) for figure in FIGURES]
    assert of_kept == pytest.approx(whole, abs=0.02)


def test_a_threshold_catches_what_stands_at_it_and_above() -> None:
    y, p, w = np.array([1, 1, 0, 0.0]), np.array([0.3, 0.2, 0.3, 0.1]), np.array([1, 3, 2, 2.0])

    recall, false_positives = weighted.rates_at_threshold(y, p, w, 0.3)

    assert (recall, false_positives) == (0.25, 0.5)


def test_a_clicked_item_counts_where_it_stands_among_the_first_of_its_list() -> None:
    # Given two lists of three: the first one's best item was clicked, the other's worst
    y, group = np.array([1, 0, 0, 0, 0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.5, 0.1, 0.8, 0.7, 0.6])

    def found(first: int) -> float:
        return weighted.recall_at_k(y, p, np.ones(6), group, first)

    assert found(1) == 0.5
    assert found(2) == 0.5
    assert np.isnan(found(3))  # lists of three say nothing of their first three


def test_items_that_were_left_out_stood_before_a_clicked_one() -> None:
    # Given a click behind one kept negative that stands for ten
    y, p, w = np.array([0, 1.0]), np.array([0.9, 0.5]), np.array([10, 1.0])

    assert weighted.recall_at_k(y, p, w, np.zeros(2, np.int64), 10) == 0
    assert weighted.recall_at_k(y, p, np.array([9, 2.0]), np.zeros(2, np.int64), 10) == 1


def test_what_has_no_meaning_is_not_a_number() -> None:
    y, p, w = np.zeros(3), np.full(3, 0.1), np.ones(3)

    assert np.isnan(weighted.auc(y, p, w))
    assert np.isnan(weighted.predicted_to_observed(y, p, w))
    assert np.isnan(weighted.rates_at_threshold(y, p, w, 0.5)[0])
