"""The browsing lane: lists for users who clicked or bought, rankings of searches, and a scored row for each."""

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.messages import Ranking, Recommendations
from contract.units import DAY_MS, MINUTE_MS
from testkit.environment.tiny_bundle import publish_tiny, sigmoid
from testkit.metrics import read_metric
from tests.worker.answers import read_answers, read_messages, read_rows
from tests.worker.browsing_harness import PURCHASE_VALUE, SOURCES, BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, KINDS, NOW_MS, make_click, make_order, make_product, make_record, make_search
from transport.records import TopicPartition
from worker.catalogue.item_index import ItemNumbers
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.records.answers import CLICK
from worker.records.batch import decode_records
from worker.scoring.results import BatchResults


def item_ids(recommendations: Recommendations) -> list[str]:
    return [item.item_id for item in recommendations.items]


def only_list(results: BatchResults) -> Recommendations:
    (recommendations,) = read_messages(results, Recommendations)
    return recommendations


@pytest.fixture
def model(tmp_path: Path) -> Model:
    publish_tiny(tmp_path, "v1")
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


@pytest.fixture
def lane(model: Model) -> BrowsingHarness:
    harness = BrowsingHarness()
    harness.scorer.activate(model)
    return harness


def test_a_click_brings_a_list_ranked_by_the_model(lane: BrowsingHarness) -> None:
    # when
    results = lane.answer(make_click_record("c1", "i0"))
    # then more expensive items come first
    ((recommendations, scored),) = read_answers(results, Recommendations)
    assert item_ids(recommendations) == ["i3", "i2", "i1", "i0"]
    p = sigmoid(np.arange(4, dtype=np.float32))[::-1]
    np.testing.assert_allclose([item.score for item in recommendations.items], p + PURCHASE_VALUE * p * p, 1e-5)
    np.testing.assert_allclose([item.probability["click"] for item in recommendations.items], p, 1e-5)
    assert (recommendations.user_id, recommendations.model_version) == ("u", "v1")
    assert (recommendations.degraded, recommendations.source_ms) == (False, NOW_MS)
    assert (scored.kind, scored.event_id, list(scored.items)) == (
        "recommendation",
        recommendations.recommendation_id,
        item_ids(recommendations),
    )
    assert scored.groups["item"].rows == 4


def test_bought_and_sold_out_items_are_not_on_the_list(lane: BrowsingHarness) -> None:
    # given
    lane.catalogue.put(make_product("i2", stock=0))
    # when
    recommendations = only_list(lane.answer(make_record(make_order("o1", "i3"))))
    # then
    assert item_ids(recommendations) == ["i1", "i0"]


@pytest.mark.parametrize("hides", [False, True])
def test_what_an_erased_user_bought_is_no_longer_left_out(model: Model, tmp_path: Path, hides: bool) -> None:
    # given a user who has bought i3 and waits for a list, without a rule or with one that hides it for long
    rule = '[[rules]]\nname = "bought"\naction = "hide"\nafter = "bought"\ndays = 30\n'
    (tmp_path / "rules.toml").write_text(rule if hides else "rules = []")
    lane = BrowsingHarness(rules=str(tmp_path / "rules.toml"), explore=0)
    lane.scorer.activate(model)
    lane.run_periodic()
    order = make_record(make_order("o1", "i3"))
    lane.answer(order, refresh_max=0)
    # when another user is erased, then the item is left out
    lane.scorer.forget_erased({"other": NOW_MS + 1})
    assert "i3" not in item_ids(only_list(lane.answer(make_click_record("c1"))))
    # when the user is erased while another order waits
    lane.answer(order, refresh_max=0)
    lane.scorer.forget_erased({"u": NOW_MS})
    # then there is no list of that, and the next one has the item
    assert read_messages(lane.answer(), Recommendations) == []
    click = make_record(make_click("c2", "i0", ts_ms=NOW_MS + 1), topic="shop.clicks")
    assert "i3" in item_ids(only_list(lane.answer(click)))


def test_without_a_model_lists_hold_popular_items_and_are_marked_degraded() -> None:
    # given
    lane = BrowsingHarness()
    lane.answer(
        make_click_record("c1", "i1", "a"), make_click_record("c2", "i1", "b"), make_click_record("c3", "i3", "c")
    )
    lane.run_periodic()
    # when
    results = lane.answer(make_record(make_order("o1", "i0", user="new")))
    # then
    ((recommendations, scored),) = read_answers(results, Recommendations)
    assert [(item.item_id, item.why, item.probability) for item in recommendations.items] == [
        ("i1", "popular", {}),
        ("i3", "popular", {}),
    ]
    assert (recommendations.degraded, recommendations.model_version, scored.scores) == (True, "", {})


def test_items_visited_or_bought_together_become_neighbours() -> None:
    # given one user who went from i0 to i2, and another who bought i2 with i1
    lane = BrowsingHarness()
    lane.answer(make_click_record("c1", "i0", "a"))
    lane.answer(make_click_record("c2", "i2", "a"))
    lane.answer(make_record(make_order("o1", "i1", "i2", user="b")))
    # when a third user sees i2
    recommendations = only_list(lane.answer(make_click_record("c3", "i2", "c")))
    # then
    assert [(item.item_id, item.why) for item in recommendations.items] == [
        ("i0", "neighbour"),
        ("i1", "neighbour"),
        ("i2", "recent"),
    ]


def test_an_event_that_waited_too_long_is_scored_but_brings_no_list() -> None:
    # given
    lane = BrowsingHarness(shed_ms=MINUTE_MS)
    shed = read_metric(metrics.LISTS_SHED)
    # when
    late = lane.answer(make_click_record("c1", "i0"), make_record(make_order("o1", "i1")), now_ms=NOW_MS + 60_001)
    # then
    assert read_messages(late, Recommendations) == []
    assert [row.event_id for row in read_rows(late, CLICK)] == ["c1"]
    assert read_metric(metrics.LISTS_SHED) - shed == 2
    # when the next one comes in time
    results = lane.answer(make_click_record("c2", "i0"), make_click_record("c3", "i2"), now_ms=NOW_MS)
    # then the earlier purchase is still left out
    assert "i1" not in item_ids(only_list(results))


def test_a_fresh_item_is_shown_and_logged_with_its_propensity(lane: BrowsingHarness) -> None:
    # given a new item in an old shop
    lane = BrowsingHarness(explore=0.5, length=4)
    late = NOW_MS + 30 * DAY_MS
    lane.catalogue.put(make_product("new", ts_ms=late))
    lane.answer(make_record(make_click("c1", "i0", ts_ms=late), topic="shop.clicks"))
    lane.run_periodic()
    # when
    results = lane.answer(make_record(make_click("c2", "i0", ts_ms=late), topic="shop.clicks"))
    # then one fresh item for two slots is certain to be there, as are the others
    ((recommendations, scored),) = read_answers(results, Recommendations)
    last = recommendations.items[-1]
    assert (last.item_id, last.why, last.propensity) == ("new", "fresh", 1.0)
    assert scored.propensities == (1.0,) * len(recommendations.items)


def test_a_list_is_built_once_in_its_interval_and_later_without_a_new_event() -> None:
    # given
    lane = BrowsingHarness(refresh_ms=1_000)
    first = lane.answer(make_click_record("c1", "i0"), now_ms=NOW_MS)
    # when the user goes on, and then waits
    second = lane.answer(make_click_record("c2", "i1"), make_click_record("c3", "i1"), now_ms=NOW_MS + 999)
    third = lane.answer(now_ms=NOW_MS + 1_000)
    fourth = lane.answer(now_ms=NOW_MS + 9_000)
    # then
    lists = [read_messages(results, Recommendations) for results in (first, second, third, fourth)]
    assert [len(built) for built in lists] == [1, 0, 1, 0]
    assert item_ids(lists[2][0])[0] == "i1"


def test_a_user_who_waits_again_gets_a_list_with_an_id_of_its_own() -> None:
    # given a click that brought a list, and one of a guest
    lane = BrowsingHarness()
    records = [make_click_record("c1", "i0", "a"), make_click_record("c2", "i0", "", 1)]
    first = only_list(lane.answer(*records))
    batch = decode_records(records, KINDS, SOURCES, ("orders",))
    # when they are read again, because the list may be lost
    lane.scorer.wait_again(batch, batch.arrivals, NOW_MS)
    # then
    again = only_list(lane.answer())
    assert (again.user_id, again.source_ms) == (first.user_id, first.source_ms)
    assert again.recommendation_id != first.recommendation_id


def test_a_user_who_waits_already_does_not_wait_again_for_an_earlier_event() -> None:
    # given a user who waits because of the second click
    lane = BrowsingHarness()
    records = [make_click_record("c1", "i0", "a"), make_click_record("c2", "i1", "a", 1)]
    lane.answer(*records, refresh_max=0)
    batch = decode_records(records[:1], KINDS, SOURCES, ("orders",))
    # when
    lane.scorer.wait_again(batch, batch.arrivals, NOW_MS)
    # then
    assert lane.scorer.find_waiting([TopicPartition("shop.clicks", 0)]) == {TopicPartition("shop.clicks", 0): 0}
    ((_, scored),) = read_answers(lane.answer(), Recommendations)
    assert scored.offset == 1


def test_a_list_is_cut_to_its_length(model: Model) -> None:
    # given
    lane = BrowsingHarness(candidates=3, length=2)
    lane.scorer.activate(model)
    # when
    recommendations = only_list(lane.answer(make_click_record("c1")))
    # then
    assert len(recommendations.items) == 2


def test_a_click_is_logged_with_the_model_s_scores(lane: BrowsingHarness) -> None:
    # when
    results = lane.answer(make_click_record("c1", "i2"), make_click_record("c2", "ghost"))
    # then
    known, unknown = read_rows(results, CLICK)
    assert (known.event_id, known.items, known.entities) == ("c1", ("i2",), ("user:u", "item:i2"))
    np.testing.assert_allclose(known.scores["click"], sigmoid(np.array([2], np.float32)), 1e-6)
    np.testing.assert_allclose(unknown.scores["click"], [0.5], 1e-6)


def test_a_click_that_cannot_be_scored_costs_no_other_its_row(
    lane: BrowsingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an item that breaks the catalogue
    item_block = lane.catalogue.item_block

    def break_on_ghosts(items: list[str], numbers: ItemNumbers) -> object:
        if "ghost" in items:
            raise RuntimeError("no such block")
        return item_block(items, numbers)

    monkeypatch.setattr(lane.catalogue, "item_block", break_on_ghosts)
    # when
    results = lane.answer(
        *[make_record(make_click(f"c{n}", "ghost" if n == 3 else "i0"), n, topic="shop.clicks") for n in range(8)]
    )
    # then
    assert [row.event_id for row in read_rows(results, CLICK)] == [f"c{n}" for n in range(8) if n != 3]
    assert [(reject.record.offset, reject.reason) for reject in results.rejects] == [(3, "cannot_score")]


def test_a_search_is_ranked_by_relevance_and_its_unranked_items_follow(model: Model) -> None:
    # given a lane that ranks three items at most
    lane = BrowsingHarness(candidates=3, length=2)
    lane.scorer.activate(model)
    # when
    search = make_search("s1", "i1", "ghost", "i3", "i2")
    results = lane.answer(make_record(search, topic="shop.searches"))
    # then
    ((ranking, scored),) = read_answers(results, Ranking)
    assert ranking.items == ("i3", "i1", "ghost", "i2")
    np.testing.assert_allclose(ranking.relevance, sigmoid(np.array([3, 1, 0], np.float32)), 1e-6)
    assert (scored.items, scored.query) == (("i3", "i1", "ghost"), "red shoes")


def test_a_search_without_a_result_or_without_a_model_gets_no_ranking(lane: BrowsingHarness) -> None:
    assert lane.answer(make_record(make_search("s1"), topic="shop.searches")) == BatchResults()
    lane.scorer.activate(None)
    assert lane.answer(make_record(make_search("s2", "i1"), topic="shop.searches")) == BatchResults()
