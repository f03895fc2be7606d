"""Live metrics of served models: which rows have matured, and what is computed of them."""

import numpy as np
import pytest

from contract.messages import Example
from contract.settings.monitor import MonitorConfig
from contract.settings.worker import FeedbackSettings
from contract.units import DAY_MS, HOUR_MS
from tests.model.small import CATEGORY, CLICK, FEATURES, FRAUD, PURCHASE, RELEVANCE, TASKS
from training.metrics.calibration import calibration_error
from training.metrics.losses import log_loss
from training.metrics.ranking import auc
from training.monitor.example_store import GROW_DIVISOR, ExampleStore
from training.monitor.live_metrics import (
    VERSIONS_MAX,
    LiveMetrics,
    compute_metrics,
    maturity_delay_ms,
    select_matured,
)

FEEDBACK = FeedbackSettings()


def make_row(number: int, labels: dict[str, float], **fields: object) -> Example:
    """An item of a list, or an order, served at the hour of its number."""
    values = {
        "example_id": f"e{number}",
        "revision": 0,
        "event_id": f"v{number // 4}",
        "user_id": f"u{number}",
        "ts_ms": number * HOUR_MS,
        "model_version": "b",
        "features": FEATURES.digest,
        "groups": {},
        "labels": labels,
        "known_ms": dict.fromkeys(labels, number * HOUR_MS),
        "served": dict.fromkeys(labels, 0.25),
    }
    return Example(**values | fields)  # type: ignore[arg-type]


def make_live(*rows: Example, now_ms: int | None = None, **config: float) -> LiveMetrics:
    live = LiveMetrics(tasks=TASKS, feedback=FEEDBACK, config=MonitorConfig(**config))  # type: ignore[arg-type]
    for row in rows:
        live.observe(row)
    live.now_ms = live.now_ms if now_ms is None else now_ms
    return live


@pytest.mark.parametrize(
    ("task", "delay_s"),
    [
        (CLICK, FEEDBACK.click_wait_s),
        (RELEVANCE, FEEDBACK.click_wait_s),
        (PURCHASE, FEEDBACK.click_wait_s + FEEDBACK.purchase_window_s),
        (FRAUD, FEEDBACK.fraud_window_s),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_label_matures_at_its_delay_and_not_before_whatever_its_value(
    task: object, delay_s: int, label: float
) -> None:
    due_ms = (delay_s + FEEDBACK.grace_s) * 1_000
    row = make_row(0, {task.name: label})  # type: ignore[attr-defined]

    before = make_live(row, now_ms=due_ms - 1).select_matured(task, "b")  # type: ignore[arg-type]
    after = make_live(row, now_ms=due_ms).select_matured(task, "b")  # type: ignore[arg-type]

    assert (len(before), len(after)) == (0, 1)


def test_an_item_not_bought_yet_is_no_negative_within_the_purchase_window() -> None:
    # given an item that was clicked, and not bought within the short wait
    clicked = make_row(0, {"click": 1.0, "purchase": 0.0}, revision=2)

    # when its click has matured, and a purchase may still arrive
    live = make_live(clicked, now_ms=maturity_delay_ms(PURCHASE, FEEDBACK) - 1)

    # then only the click is evaluated
    assert len(live.select_matured(CLICK, "b")) == 1
    assert len(live.select_matured(PURCHASE, "b")) == 0


def test_the_newest_revision_counts_in_any_order_of_arrival() -> None:
    first, last = make_row(0, {"click": 0.0}), make_row(0, {"click": 1.0}, revision=1)

    for order in ([first, last], [last, first]):
        matured = make_live(*order, now_ms=DAY_MS).select_matured(CLICK, "b")

        assert matured.y.tolist() == [1.0]


def test_live_metrics_are_computed_from_the_served_scores(seed: int) -> None:
    # given many rows of a calibrated version, and one of another version
    rng = np.random.default_rng(seed)
    p = rng.random(500)
    y = (rng.random(500) < p).astype(float)
    rows = [make_row(n, {"click": y[n]}, served={"click": p[n]}, ts_ms=n) for n in range(500)]
    live = make_live(*rows, make_row(501, {"click": 1.0}, model_version="a", ts_ms=0), now_ms=DAY_MS)

    # when they are evaluated
    figures = live.evaluate("b", {"click": {"review": 0.5}})["click"]

    # then the metrics equal those of the metrics module, and those at the threshold
    assert figures["rows"] == 500
    assert figures["auc"] == pytest.approx(auc(y, p))
    assert figures["log_loss"] == pytest.approx(log_loss(y, p))
    assert figures["ece"] == pytest.approx(calibration_error(y, p))
    assert figures["recall_review"] == pytest.approx(y[p >= 0.5].sum() / y.sum())
    assert figures["fpr_review"] == pytest.approx((1 - y)[p >= 0.5].sum() / (1 - y).sum())


def test_sampled_negatives_are_weighted_by_their_sampling_rate() -> None:
    rows = [make_row(n, {"click": float(n == 0)}, negative_rate=0.1 if n else 1.0, ts_ms=n) for n in range(3)]

    matured = make_live(*rows, now_ms=DAY_MS).select_matured(CLICK, "b")

    assert sorted(matured.w.tolist()) == [1.0, 10.0, 10.0]
    assert compute_metrics(CLICK, matured, {}, 10)["predicted_to_observed"] == pytest.approx(0.25 * 21)


def test_shadow_scores_are_evaluated_under_the_version_of_the_shadow() -> None:
    row = make_row(0, {"click": 1.0}, shadow_version="c", shadow={"click": 0.75})
    live = make_live(row, now_ms=DAY_MS)

    assert live.versions() == ["c", "b"]
    assert live.select_matured(CLICK, "c").p.tolist() == [0.75]


def test_only_the_latest_versions_are_listed() -> None:
    live = make_live(*(make_row(n, {"click": 1.0}, model_version=f"v{n:03}") for n in range(50)), now_ms=DAY_MS)

    assert live.versions() == [f"v{n:03}" for n in range(49, 49 - VERSIONS_MAX, -1)]
    assert len(live.select_matured(CLICK, "v000")) == 1  # an older version may be serving, and is still evaluated


def test_scores_that_are_not_finite_are_counted_and_left_out() -> None:
    rows = [make_row(n, {"click": float(n % 2)}, ts_ms=n) for n in range(10)]
    broken = make_row(11, {"click": 1.0}, served={"click": float("nan")}, ts_ms=0)

    figures = make_live(*rows, broken, now_ms=DAY_MS).evaluate("b", {})["click"]

    assert figures["not_finite"] == 1
    assert figures["auc"] == 0.5


def test_invalid_labels_are_left_out() -> None:
    rows = [make_row(0, {"click": 7.0}), make_row(1, {"click": "yes"})]  # type: ignore[dict-item]

    assert len(select_matured(rows, CLICK, "b")) == 0


def test_rows_without_scores_are_not_stored() -> None:
    live = make_live(make_row(0, {"click": 1.0}, served={}), make_row(1, {"category": 1.0}), now_ms=DAY_MS)

    assert live.versions() == []
    assert len(live.select_matured(CATEGORY, "b")) == 0


def test_rows_that_left_the_window_are_removed() -> None:
    rows = [make_row(n, {"click": 0.0}) for n in range(72)]
    live = make_live(*rows, now_ms=72 * HOUR_MS + maturity_delay_ms(CLICK, FEEDBACK), window_s=86_400.0)

    assert len(live.select_matured(CLICK, "b")) == 23

    live.now_ms += maturity_delay_ms(PURCHASE, FEEDBACK) + 10 * DAY_MS
    live.evict_old()
    assert live.versions() == []


def test_a_full_store_keeps_all_rows_of_fewer_users() -> None:
    # given a store of a hundred rows
    store = ExampleStore(rows_max=100)

    # when a thousand users have five rows each
    for n in range(5_000):
        store.add(make_row(n, {"click": 0.0}, user_id=f"u{n % 1_000}"))

    # then some users are kept, with all their rows
    users = [row.user_id for row in store]
    assert 0 < len(users) <= 100
    assert store.share == 2.0 ** -round(-np.log2(store.share))
    assert all(users.count(user) == 5 for user in set(users))


def test_a_store_with_few_rows_samples_more_users_again() -> None:
    store = ExampleStore(rows_max=100)
    for n in range(1_000):
        store.add(make_row(n, {"click": 0.0}))
    share = store.share

    store.evict_before(1_000 * HOUR_MS)

    assert len(store) * GROW_DIVISOR < 100
    assert store.share == 2 * share


def test_the_present_is_when_the_latest_label_became_known() -> None:
    live = make_live(make_row(3, {"click": 0.0}), make_row(2, {"click": 0.0}))

    assert live.now_ms == 3 * HOUR_MS
