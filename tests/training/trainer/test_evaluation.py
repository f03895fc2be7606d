import numpy as np
import pytest
from msgspec.structs import replace

from contract.tasks import Task
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, RELEVANCE
from training.metrics.fraud import card_precision
from training.trainer.evaluation import DAY_MS, GroundTruth, compute_metrics

COMMON_FIGURES = {"log_loss", "gain"}
PROBABILITY_FIGURES = COMMON_FIGURES | {"auc", "ece", "predicted_to_observed", "mean_label", "mean_prediction"}


@pytest.mark.parametrize(
    ("task", "figures"),
    [
        (CLICK, PROBABILITY_FIGURES | {"grouped_auc"}),
        (FRAUD, PROBABILITY_FIGURES | {"average_precision", "recall_fpr_1", "card_precision_100"}),
        (RELEVANCE, PROBABILITY_FIGURES | {"grouped_auc", "ndcg_10"}),
        (CATEGORY, COMMON_FIGURES | {"accuracy", "macro_f1", "ece"}),
        (DEMAND, {"rmse", "gain"}),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
def test_each_task_has_the_figures_of_its_kind(task: Task, figures: set[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng.integers(0, 3 if task.kind == "multiclass" else 2, 400))
    p = rng.dirichlet(np.ones(3), 400) if task.kind == "multiclass" else rng.random(400)

    assert set(compute_metrics(task, truth, p)) == figures


def test_the_gain_of_the_best_constant_is_zero_and_that_of_the_truth_is_all(seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 2, 200).astype(np.float32)

    assert compute_metrics(CLICK, make_truth(y), np.full(200, y.mean()))["gain"] == pytest.approx(0)
    assert compute_metrics(CLICK, make_truth(y), y)["gain"] == pytest.approx(1, abs=1e-5)


def test_users_known_for_fraud_when_a_day_begins_are_not_looked_at_again(seed: int) -> None:
    # Given two days of payments of 150 users, and a fraud of the first day that was known within it
    rng = np.random.default_rng(seed)
    p = rng.random(300)
    y = np.zeros(300)
    y[[3, 153]] = 1
    truth = make_truth(y, days=2)
    known = replace_known(truth, 3, DAY_MS // 2)

    # When precision is taken
    later, sooner = (compute_metrics(FRAUD, one, p)["card_precision_100"] for one in (truth, known))

    # Then the same user's fraud of the second day counts only if the first was not known by then
    day, user = truth.ts_ms // DAY_MS, truth.user_id
    assert later == pytest.approx(card_precision(y, p, user, day))
    rest = np.arange(300) != 153
    assert sooner == pytest.approx(card_precision(y[rest], p[rest], user[rest], day[rest]))


def test_precision_of_a_hundred_has_no_meaning_where_all_are_looked_at() -> None:
    y = np.array([0.0, 1.0] * 50)

    assert np.isnan(compute_metrics(FRAUD, make_truth(y), y)["card_precision_100"])


def test_precision_of_a_day_has_no_meaning_without_time(seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 2, 300)
    truth = make_truth(y)
    timeless = GroundTruth(truth.y, truth.user_id, truth.event_id, truth.ts_ms * 0, truth.known_ms)

    assert np.isfinite(compute_metrics(FRAUD, truth, y)["card_precision_100"])
    assert np.isnan(compute_metrics(FRAUD, timeless, y)["card_precision_100"])


def test_a_review_task_is_judged_by_its_alarms_as_well() -> None:
    y = np.array([0.0, 1.0] * 50)

    assert compute_metrics(replace(FRAUD, graph="review"), make_truth(y), y)["recall_fpr_1"] == 1


def make_truth(y: np.ndarray, days: int = 1) -> GroundTruth:
    """Rows of as many users as fit into a day, their labels known long after."""
    n = len(y) // days
    ts_ms = np.arange(len(y)) // n * DAY_MS + 1
    users = np.array([f"u{at % n}" for at in range(len(y))], object)
    return GroundTruth(y, users, np.array([f"e{at // 5}" for at in range(len(y))], object), ts_ms, ts_ms + 30 * DAY_MS)


def replace_known(truth: GroundTruth, row: int, known_ms: int) -> GroundTruth:
    changed = truth.known_ms.copy()
    changed[row] = known_ms
    return GroundTruth(truth.y, truth.user_id, truth.event_id, truth.ts_ms, changed)
