import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, ndcg_score, roc_auc_score

from training import metrics


@pytest.fixture
def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and predictions with many ties."""
    chance = np.random.default_rng(seed)
    return chance.integers(0, 2, 500).astype(np.float32), chance.integers(1, 20, 500) / 20


def test_auc_and_average_precision_and_log_loss_are_those_of_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = drawn

    assert metrics.auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert metrics.average_precision(y, p) == pytest.approx(average_precision_score(y, p))
    assert metrics.log_loss(y, p) == pytest.approx(log_loss(y, p))


def test_figures_of_classes_are_those_of_scikit_learn(seed: int) -> None:
    chance = np.random.default_rng(seed)
    y, p = chance.integers(0, 4, 300), chance.dirichlet(np.ones(4), 300)

    assert metrics.log_loss(y, p) == pytest.approx(log_loss(y, p))
    assert metrics.macro_f1(y, p) == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
    assert metrics.accuracy(y, p) == pytest.approx((p.argmax(1) == y).mean())


def test_ndcg_is_the_mean_of_the_queries_that_have_something_relevant(seed: int) -> None:
    chance = np.random.default_rng(seed)
    y, p, query = chance.integers(0, 2, 200) * 1.0, chance.random(200), np.repeat(np.arange(8), 25).astype(object)
    y[query == 3] = 0

    found = metrics.ndcg(y, p, query)

    each = [ndcg_score([y[query == q]], [p[query == q]], k=10) for q in range(8) if q != 3]
    assert found == pytest.approx(np.mean(each))


def test_calibration_error_is_the_gap_of_predicted_and_observed() -> None:
    y = np.array([0.0, 1.0] * 50)

    assert metrics.calibration_error(y, np.full(100, 0.5)) == pytest.approx(0)
    assert metrics.calibration_error(y, np.full(100, 0.9)) == pytest.approx(0.4)


def test_a_figure_without_meaning_is_nan() -> None:
    ones, p = np.ones(3), np.array([0.1, 0.5, 0.9])

    assert np.isnan(metrics.auc(ones, p))
    assert np.isnan(metrics.average_precision(1 - ones, p))
    assert np.isnan(metrics.ndcg(1 - ones, p, np.array(["a", "a", "b"], object)))
    assert np.isnan(metrics.log_loss(ones[:0], p[:0]))


def test_a_certain_and_wrong_prediction_costs_much_but_not_infinity() -> None:
    assert 10 < metrics.log_loss(np.ones(1), np.zeros(1)) < 20


def test_the_root_of_the_mean_square_is_in_the_units_of_the_labels() -> None:
    assert metrics.root_mean_square(np.array([1.0, 5.0]), np.array([4.0, 1.0])) == pytest.approx(np.sqrt(12.5))
