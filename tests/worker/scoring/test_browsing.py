"""Browsing: lists for users who clicked or bought, rankings of searches, and a scored row for each."""

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.messages import Recommendations
from tests.worker.browsing_harness import VALUE, BrowsingHarness, make_click_record
from tests.worker.events import FEATURES, NOW_MS, make_click, make_order, make_product, make_record, make_search
from tests.worker.tiny_bundle import publish_tiny, sigmoid
from worker.catalogue.item_index import ItemNumbers
from worker.model.onnx_model import Model
from worker.ops import metrics


def item_ids(lists: Recommendations) -> list[str]:
    return [item.item_id for item in lists.items]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    publish_tiny(tmp_path, "v1")
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


@pytest.fixture
def lane(model: Model) -> BrowsingHarness:
    made = BrowsingHarness()
    made.browser.activate(model)
    return made


def test_who_clicks_gets_a_list_that_the_model_has_ranked(lane: BrowsingHarness) -> None:
    # when
    ((made, scored),) = lane.answer(make_click_record("c1", "i0")).lists
    # then the dearer an item, the higher it stands
    assert item_ids(made) == ["i3", "i2", "i1", "i0"]
    p = sigmoid(np.arange(4, dtype=np.float32))[::-1]
    np.testing.assert_allclose([item.score for item in made.items], p + VALUE * p * p, 1e-5)
    np.testing.assert_allclose([item.probability["click"] for item in made.items], p, 1e-5)
    assert (made.user_id, made.model_version, made.degraded, made.source_ms) == ("u", "v1", False, NOW_MS)
    assert (scored.kind, scored.event_id, list(scored.items)) == (
        "recommendation",
        made.recommendation_id,
        item_ids(made),
    )
    assert scored.groups["item"].rows == 4


def test_what_was_just_bought_or_is_sold_out_is_not_on_the_list(lane: BrowsingHarness) -> None:
    # given
    lane.catalogue.put(make_product("i2", stock=0))
    # when
    ((made, _),) = lane.answer(make_record(make_order("o1", "i3"))).lists
    # then
    assert item_ids(made) == ["i1", "i0"]


def test_without_a_model_lists_hold_popular_items_and_say_so() -> None:
    # given
    lane = BrowsingHarness()
    lane.answer(
        make_click_record("c1", "i1", "a"), make_click_record("c2", "i1", "b"), make_click_record("c3", "i3", "c")
    )
    lane.browser.refresh_periodic(lane.profiles)
    # when
    ((made, scored),) = lane.answer(make_record(make_order("o1", "i0", user="new"))).lists
    # then
    assert [(item.item_id, item.why, item.probability) for item in made.items] == [
        ("i1", "popular", {}),
        ("i3", "popular", {}),
    ]
    assert (made.degraded, made.model_version, scored.scores) == (True, "", {})


def test_what_people_came_to_next_is_near_from_then_on() -> None:
    # given one who came from i0 to i2 and another who bought it with i1
    lane = BrowsingHarness()
    lane.answer(make_click_record("c1", "i0", "a"))
    lane.answer(make_click_record("c2", "i2", "a"))
    lane.answer(make_record(make_order("o1", "i1", "i2", user="b")))
    # when somebody else sees it
    ((made, _),) = lane.answer(make_click_record("c3", "i2", "c")).lists
    # then
    assert [(item.item_id, item.why) for item in made.items] == [
        ("i0", "neighbour"),
        ("i1", "neighbour"),
        ("i2", "recent"),
    ]


def test_what_waited_too_long_brings_no_list_and_is_counted_but_its_event_is_answered() -> None:
    # given
    lane = BrowsingHarness(shed_ms=60_000)
    shed = metrics.LISTS_SHED._value.get()
    # when
    late = lane.answer(make_click_record("c1", "i0"), make_record(make_order("o1", "i1")), now_ms=NOW_MS + 60_001)
    # then
    assert (len(late.lists), [scored.event_id for scored in late.scored]) == (0, ["c1"])
    assert metrics.LISTS_SHED._value.get() - shed == 2
    # when the next one comes in time
    ((made, _),) = lane.answer(make_click_record("c2", "i0"), make_click_record("c3", "i2"), now_ms=NOW_MS).lists
    # then what was bought in the meantime is remembered
    assert "i1" not in item_ids(made)


def test_a_fresh_item_is_shown_with_its_chance_and_logged_with_it(lane: BrowsingHarness) -> None:
    # given a new item in an old shop
    lane = BrowsingHarness(explore=0.5, length=4)
    late = NOW_MS + 30 * 86_400_000
    lane.catalogue.put(make_product("new", ts_ms=late))
    lane.answer(make_record(make_click("c1", "i0", ts_ms=late), topic="shop.clicks"))
    lane.browser.refresh_periodic(lane.profiles)
    # when
    ((made, scored),) = lane.answer(make_record(make_click("c2", "i0", ts_ms=late), topic="shop.clicks")).lists
    # then one such item for two places is there for sure; the others do not name a chance
    assert [(item.item_id, item.why, item.propensity) for item in made.items][-1] == ("new", "fresh", 1.0)
    assert scored.propensities == (1.0,) * len(made.items)


def test_a_list_is_made_at_most_once_in_its_time_and_then_by_itself() -> None:
    # given
    lane = BrowsingHarness(refresh_ms=1_000)
    first = lane.answer(make_click_record("c1", "i0"), now_ms=NOW_MS)
    # when the user goes on, and then waits
    second = lane.answer(make_click_record("c2", "i1"), make_click_record("c3", "i1"), now_ms=NOW_MS + 999)
    third = lane.answer(now_ms=NOW_MS + 1_000)
    fourth = lane.answer(now_ms=NOW_MS + 9_000)
    # then
    assert [len(answers.lists) for answers in (first, second, third, fourth)] == [1, 0, 1, 0]
    assert item_ids(third.lists[0][0])[0] == "i1"


def test_a_list_is_cut_to_its_length(model: Model) -> None:
    # given
    lane = BrowsingHarness(candidates=3, length=2)
    lane.browser.activate(model)
    # when
    ((made, _),) = lane.answer(make_click_record("c1")).lists
    # then
    assert len(made.items) == 2


def test_a_click_is_logged_with_what_the_model_thought_of_it(lane: BrowsingHarness) -> None:
    # when
    answers = lane.answer(make_click_record("c1", "i2"), make_click_record("c2", "ghost"))
    # then
    two, ghost = answers.scored
    assert (two.event_id, two.items, two.entities) == ("c1", ("i2",), ("user:u", "item:i2"))
    np.testing.assert_allclose(two.scores["click"], sigmoid(np.array([2], np.float32)), 1e-6)
    np.testing.assert_allclose(ghost.scores["click"], [0.5], 1e-6)


def test_an_impossible_click_costs_no_other_its_row(lane: BrowsingHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    # given an item that breaks the catalogue
    block = lane.catalogue.item_block

    def break_on_ghosts(items: list[str], numbers: ItemNumbers) -> object:
        if "ghost" in items:
            raise RuntimeError("no such block")
        return block(items, numbers)

    monkeypatch.setattr(lane.catalogue, "item_block", break_on_ghosts)
    # when
    answers = lane.answer(
        *[make_record(make_click(f"c{n}", "ghost" if n == 3 else "i0"), n, topic="shop.clicks") for n in range(8)]
    )
    # then
    assert [scored.event_id for scored in answers.scored] == [f"c{n}" for n in range(8) if n != 3]
    assert [(r.record.offset, r.reason) for r in answers.rejects] == [(3, "cannot_score")]


def test_a_search_is_put_into_the_order_of_relevance_and_the_rest_follows(model: Model) -> None:
    # given a lane that ranks three items at most
    lane = BrowsingHarness(candidates=3, length=2)
    lane.browser.activate(model)
    # when
    ((ranking, scored),) = lane.answer(
        make_record(make_search("s1", "i1", "ghost", "i3", "i2"), topic="shop.searches")
    ).rankings
    # then
    assert ranking.items == ("i3", "i1", "ghost", "i2")
    np.testing.assert_allclose(ranking.relevance, sigmoid(np.array([3, 1, 0], np.float32)), 1e-6)
    assert (scored.items, scored.query) == (("i3", "i1", "ghost"), "red shoes")


def test_a_search_without_a_result_or_without_a_model_keeps_the_engine_s_order(lane: BrowsingHarness) -> None:
    assert lane.answer(make_record(make_search("s1"), topic="shop.searches")).rankings == []
    lane.browser.activate(None)
    assert lane.answer(make_record(make_search("s2", "i1"), topic="shop.searches")).rankings == []
