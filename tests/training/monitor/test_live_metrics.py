import numpy as np
import pytest

from contract.messages import Example
from contract.settings import FeedbackSettings, MonitorConfig
from tests.model.small import CATEGORY, CLICK, FEATURES, FRAUD, PURCHASE, RELEVANCE, TASKS
from training.metrics import metrics
from training.monitor.example_store import GROW_DIVISOR, ExampleStore, maturity_delay_ms
from training.monitor.live_metrics import VERSIONS_MAX, LiveMetrics, compute_metrics, select_matured

FEEDBACK = FeedbackSettings()
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def make_row(number: int, labels: dict[str, float], **more: object) -> Example:
    """An item of a list that was shown, or an order, at the hour of its number."""
    scores = dict.fromkeys(labels, 0.25)
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
        "served": scores,
    }
    return Example(**values | more)  # type: ignore[arg-type]


def make_live(*rows: Example, now_ms: int | None = None, **watching: float) -> LiveMetrics:
    live = LiveMetrics(tasks=TASKS, feedback=FEEDBACK, config=MonitorConfig(**watching))  # type: ignore[arg-type]
    for scored_row in rows:
        live.observe(scored_row)
    live.now_ms = live.now_ms if now_ms is None else now_ms
    return live


@pytest.mark.parametrize(
    ("task", "wait_s"),
    [
        (CLICK, FEEDBACK.click_wait_s),
        (RELEVANCE, FEEDBACK.click_wait_s),
        (PURCHASE, FEEDBACK.click_wait_s + FEEDBACK.purchase_window_s),
        (FRAUD, FEEDBACK.fraud_window_s),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_label_counts_when_its_wait_is_over_and_not_before_whatever_it_says(
    task: object, wait_s: int, label: float
) -> None:
    due_ms = (wait_s + FEEDBACK.grace_s) * 1_000
    one = make_row(0, {task.name: label})  # type: ignore[attr-defined]

    before = make_live(one, now_ms=due_ms - 1).select_matured(task, "b")  # type: ignore[arg-type]
    after = make_live(one, now_ms=due_ms).select_matured(task, "b")  # type: ignore[arg-type]

    assert (len(before), len(after)) == (0, 1)


def test_a_clicked_item_that_was_not_bought_so_far_is_no_negative_within_its_window() -> None:
    # Given an item that was clicked, and not bought within the short wait
    clicked = make_row(0, {"click": 1.0, "purchase": 0.0}, revision=2)

    # When its click has matured, and its purchase may still come
    live = make_live(clicked, now_ms=maturity_delay_ms(PURCHASE, FEEDBACK) - 1)

    # Then the click alone is figured
    assert len(live.select_matured(CLICK, "b")) == 1
    assert len(live.select_matured(PURCHASE, "b")) == 0


def test_the_newest_revision_counts_in_whatever_order_they_come() -> None:
    first, last = make_row(0, {"click": 0.0}), make_row(0, {"click": 1.0}, revision=1)

    for order in ([first, last], [last, first]):
        matured = make_live(*order, now_ms=DAY_MS).select_matured(CLICK, "b")

        assert matured.y.tolist() == [1.0]


def test_figures_are_those_of_what_was_said_when_it_was_served(seed: int) -> None:
    # Given many rows of a version that says what is true, and one of another version
    rng = np.random.default_rng(seed)
    p = rng.random(500)
    y = (rng.random(500) < p).astype(float)
    rows = [make_row(n, {"click": y[n]}, served={"click": p[n]}, ts_ms=n) for n in range(500)]
    live = make_live(*rows, make_row(501, {"click": 1.0}, model_version="a", ts_ms=0), now_ms=DAY_MS)

    # When they are figured
    figures = live.evaluate("b", {"click": {"review": 0.5}})["click"]

    # Then they are the figures of metrics, and of the threshold
    assert figures["rows"] == 500
    assert figures["auc"] == pytest.approx(metrics.auc(y, p))
    assert figures["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    assert figures["ece"] == pytest.approx(metrics.calibration_error(y, p))
    assert figures["recall_review"] == pytest.approx(y[p >= 0.5].sum() / y.sum())
    assert figures["fpr_review"] == pytest.approx((1 - y)[p >= 0.5].sum() / (1 - y).sum())


def test_rows_that_were_kept_by_chance_stand_for_those_that_were_not() -> None:
    rows = [make_row(n, {"click": float(n == 0)}, negative_rate=0.1 if n else 1.0, ts_ms=n) for n in range(3)]

    matured = make_live(*rows, now_ms=DAY_MS).select_matured(CLICK, "b")

    assert sorted(matured.w.tolist()) == [1.0, 10.0, 10.0]
    assert compute_metrics(CLICK, matured, {}, 10)["predicted_to_observed"] == pytest.approx(0.25 * 21)


def test_what_a_second_model_said_beside_is_figured_under_its_own_version() -> None:
    one = make_row(0, {"click": 1.0}, shadow_version="c", shadow={"click": 0.75})
    live = make_live(one, now_ms=DAY_MS)

    assert live.versions() == ["c", "b"]
    assert live.select_matured(CLICK, "c").p.tolist() == [0.75]


def test_figures_are_taken_of_the_latest_versions_alone() -> None:
    live = make_live(*(make_row(n, {"click": 1.0}, model_version=f"v{n:03}") for n in range(50)), now_ms=DAY_MS)

    assert live.versions() == [f"v{n:03}" for n in range(49, 49 - VERSIONS_MAX, -1)]
    assert len(live.select_matured(CLICK, "v000")) == 1  # what serves may be older, and is judged all the same


def test_answers_that_are_no_numbers_are_counted_and_spoil_no_figure() -> None:
    rows = [make_row(n, {"click": float(n % 2)}, ts_ms=n) for n in range(10)]
    broken = make_row(11, {"click": 1.0}, served={"click": float("nan")}, ts_ms=0)

    figures = make_live(*rows, broken, now_ms=DAY_MS).evaluate("b", {})["click"]

    assert figures["not_finite"] == 1
    assert figures["auc"] == 0.5


def test_labels_that_the_task_does_not_have_are_left_out() -> None:
    rows = [make_row(0, {"click": 7.0}), make_row(1, {"click": "yes"})]  # type: ignore[dict-item]

    assert len(select_matured(rows, CLICK, "b")) == 0


def test_rows_that_nothing_was_said_of_are_not_kept() -> None:
    live = make_live(make_row(0, {"click": 1.0}, served={}), make_row(1, {"category": 1.0}), now_ms=DAY_MS)

    assert live.versions() == []
    assert len(live.select_matured(CATEGORY, "b")) == 0


def test_what_left_the_window_is_forgotten() -> None:
    rows = [make_row(n, {"click": 0.0}) for n in range(72)]
    live = make_live(*rows, now_ms=72 * HOUR_MS + maturity_delay_ms(CLICK, FEEDBACK), window_s=86_400.0)

    assert len(live.select_matured(CLICK, "b")) == 23

    live.now_ms += maturity_delay_ms(PURCHASE, FEEDBACK) + 10 * DAY_MS
    live.evict_old()
    assert live.versions() == []


def test_memory_is_bounded_by_keeping_fewer_people_and_all_rows_of_those() -> None:
    # Given room for a hundred rows
    kept = ExampleStore(rows_max=100)

    # When a thousand people have five each
    for n in range(5_000):
        kept.add(make_row(n, {"click": 0.0}, user_id=f"u{n % 1_000}"))

    # Then some people are kept, with everything
    users = [one.user_id for one in kept]
    assert 0 < len(users) <= 100
    assert kept.share == 2.0 ** -round(-np.log2(kept.share))
    assert all(users.count(user) == 5 for user in set(users))


def test_more_people_are_kept_again_where_few_rows_are_left() -> None:
    kept = ExampleStore(rows_max=100)
    for n in range(1_000):
        kept.add(make_row(n, {"click": 0.0}))
    share = kept.share

    kept.evict_before(1_000 * HOUR_MS)

    assert len(kept) * GROW_DIVISOR < 100
    assert kept.share == 2 * share


def test_time_is_when_the_latest_label_became_known() -> None:
    live = make_live(make_row(3, {"click": 0.0}), make_row(2, {"click": 0.0}))

    assert live.now_ms == 3 * HOUR_MS
