"""The bench of lists: distinct users, ages of what was measured, and missed aims."""

import pytest

from bench.performance.lists import DistinctUsers, ListFigures, SteadyResult, split_pages, summarize
from bench.performance.measure.latency_probe import AnswerTime


def make_figures(share: float, p50: float, p99: float) -> ListFigures:
    steady = SteadyResult(
        share=share,
        list_ms={"p50": p50, "p99": p99},
        decision_ms={"p50": 1.0, "p99": 1.0},
        users=1,
        clicks_per_second=2_000.0,
        orders_per_second=100.0,
        load=1.0,
    )
    return ListFigures(lists_per_second={}, steady=steady)


def test_each_click_is_of_another_user_and_orders_of_users_who_do_not_click() -> None:
    # when
    load = DistinctUsers(1)
    clicks = [load.draw_record("clicks").key for _ in range(100)]
    orders = [load.draw_record("orders").key for _ in range(100)]
    # then
    assert len(set(clicks)) == 100
    assert list(load.clicked_ms) == clicks
    assert not set(orders) & set(clicks)


def test_answers_to_events_of_the_warm_up_do_not_count() -> None:
    assert summarize([AnswerTime(900.0, 10.0), AnswerTime(1_030.0, 1_000.0)], 1_000.0) == {"p50": 30.0, "p99": 30.0}
    with pytest.raises(RuntimeError, match="Found none"):
        summarize([AnswerTime(900.0, 10.0)], 1_000.0)


@pytest.mark.parametrize(
    ("share", "p50", "p99", "missed"),
    [(1.0, 250.0, 1_000.0, 0), (0.9999, 250.0, 1_000.0, 1), (1.0, 250.1, 1_000.0, 1), (1.0, 250.0, 1_000.1, 1)],
)
def test_each_aim_of_lists_can_be_missed(share: float, p50: float, p99: float, missed: int) -> None:
    assert len(list(make_figures(share, p50, p99).missed_aims)) == missed


def test_pages_hold_every_user_once() -> None:
    users = [f"u{n}" for n in range(12_345)]

    assert [user for page in split_pages(users) for user in page] == users
