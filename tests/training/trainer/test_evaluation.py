import numpy as np
import pytest
from msgspec.structs import replace

from contract.tasks import Task
from contract.units import DAY_MS
from tests.model.small import CATEGORY, CLICK, DEMAND, FRAUD, RELEVANCE
from training.metrics.fraud import card_precision
from training.trainer.evaluation import GroundTruth, compute_metrics

COMMON_METRICS = {"log_loss", "gain"}
PROBABILITY_METRICS = COMMON_METRICS | {"auc", "ece", "predicted_to_observed", "mean_label", "mean_prediction"}


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        (CLICK, PROBABILITY_METRICS | {"grouped_auc"}),
        (FRAUD, PROBABILITY_METRICS | {"average_precision", "recall_fpr_1", "card_precision_100"}),
        (RELEVANCE, PROBABILITY_METRICS | {"grouped_auc", "ndcg_10"}),
        (CATEGORY, COMMON_METRICS | {"accuracy", "macro_f1", "ece"}),
        (DEMAND, {"rmse", "gain", "predicted_to_observed", "mean_label", "mean_prediction"}),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
def test_each_task_has_the_metrics_of_its_kind(task: Task, metrics: set[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = make_truth(rng.integers(0, 3 if task.kind == "multiclass" else 2, 400))
    p = rng.dirichlet(np.ones(3), 400) if task.kind == "multiclass" else rng.random(400)

    assert set(compute_metrics(task, truth, p)) == metrics


def test_the_gain_is_0_for_the_best_constant_and_1_for_the_truth(seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 2, 200).astype(np.float32)

    assert compute_metrics(CLICK, make_truth(y), np.full(200, y.mean()))["gain"] == pytest.approx(0)
    assert compute_metrics(CLICK, make_truth(y), y)["gain"] == pytest.approx(1, abs=1e-5)


def test_users_with_a_known_fraud_are_left_out_of_later_days(seed: int) -> None:
    # given two days of payments of 150 users, and a fraud of the first day that was known on that day
    rng = np.random.default_rng(seed)
    p = rng.random(300)
    y = np.zeros(300)
    y[[3, 153]] = 1
    truth = make_truth(y, days=2)
    known = replace_known(truth, 3, DAY_MS // 2)

    # when precision is computed
    late, early = (compute_metrics(FRAUD, labels, p)["card_precision_100"] for labels in (truth, known))

    # then the same user's fraud of the second day counts only if the first was not known by then
    day, user = truth.ts_ms // DAY_MS, truth.user_id
    assert late == pytest.approx(card_precision(y, p, user, day))
    rest = np.arange(300) != 153
    assert early == pytest.approx(card_precision(y[rest], p[rest], user[rest], day[rest]))


def test_precision_of_a_hundred_users_is_undefined_for_a_hundred_users() -> None:
    y = np.array([0.0, 1.0] * 50)

    assert np.isnan(compute_metrics(FRAUD, make_truth(y), y)["card_precision_100"])


def test_precision_by_day_is_undefined_without_event_times(seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 2, 300)
    truth = make_truth(y)
    timeless = GroundTruth(truth.y, truth.user_id, truth.event_id, truth.ts_ms * 0, truth.known_ms)

    assert np.isfinite(compute_metrics(FRAUD, truth, y)["card_precision_100"])
    assert np.isnan(compute_metrics(FRAUD, timeless, y)["card_precision_100"])


def test_a_review_task_has_alarm_metrics() -> None:
    y = np.array([0.0, 1.0] * 50)

    assert compute_metrics(replace(FRAUD, graph="review"), make_truth(y), y)["recall_fpr_1"] == 1


def make_truth(y: np.ndarray, days: int = 1) -> GroundTruth:
    """One row of each user on each day, with labels known long after."""
    n = len(y) // days
    ts_ms = np.arange(len(y)) // n * DAY_MS + 1
    users = np.array([f"u{row % n}" for row in range(len(y))], object)
    events = np.array([f"e{row // 5}" for row in range(len(y))], object)
    return GroundTruth(y, users, events, ts_ms, ts_ms + 30 * DAY_MS)


def replace_known(truth: GroundTruth, row: int, known_ms: int) -> GroundTruth:
    changed = truth.known_ms.copy()
    changed[row] = known_ms
    return GroundTruth(truth.y, truth.user_id, truth.event_id, truth.ts_ms, changed)
