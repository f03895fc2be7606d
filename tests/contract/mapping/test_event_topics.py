"""Which topics hold which kinds, with maps and without."""

from typing import Any

import pytest

from contract.errors import BadConfig
from contract.mapping.event_topics import FOLDED_TOGETHER, EventTopics
from contract.settings.servers import TopicSettings
from tests.contract.mapping.test_topic_map import CLICK_FIELDS, ORDER_FIELDS
from worker.records.lanes import LANES

TOPICS = TopicSettings()


def make_map(kind: object, *topics: str, fields: dict[str, Any] = CLICK_FIELDS) -> dict[str, Any]:
    return {"topics": list(topics), "kind": kind, "fields": fields}


def test_a_map_adds_topics_to_the_one_of_its_kind() -> None:
    # given
    topics = EventTopics(TOPICS, {"views": make_map("clicks", "acme.views", "acme.taps")})
    # then
    assert topics.names_of(["clicks", "scored"]) == ["shop.clicks", "shop.scored", "acme.views", "acme.taps"]
    assert topics.kinds_folded(["clicks"]) == {"shop.clicks": "clicks", "acme.views": "clicks", "acme.taps": "clicks"}
    assert topics.added == {"acme.views", "acme.taps"}
    assert topics.name_added(["clicks"]) == {
        "map.views.topics[0]": "acme.views",
        "map.views.topics[1]": "acme.taps",
    }


def test_a_map_of_the_topic_of_its_kind_adds_none() -> None:
    topics = EventTopics(TopicSettings(clicks="acme.views"), {"views": make_map("clicks", "acme.views")})
    assert topics.names_of(["clicks"]) == ["acme.views"]
    assert not topics.added


@pytest.mark.parametrize("topics", [{}, {"topics": []}])
def test_a_map_without_topics_is_for_files_and_adds_none(topics: dict[str, Any]) -> None:
    # given maps of one kind, for files alone
    table = {**topics, "kind": "clicks", "fields": CLICK_FIELDS}
    # when
    event_topics = EventTopics(TOPICS, {"views": table, "taps": table})
    # then
    assert event_topics.names_of(["clicks"]) == ["shop.clicks"]
    assert not event_topics.added
    assert not event_topics.name_added(["clicks"])


@pytest.mark.parametrize("topics", ["", [""], 5, None, {}])
def test_topics_that_are_no_names_are_refused(topics: object) -> None:
    with pytest.raises(BadConfig, match=r"`map\.views\.topics` should be a text or a list of texts"):
        EventTopics(TOPICS, {"views": {"topics": topics, "kind": "clicks", "fields": CLICK_FIELDS}})


def test_a_topic_with_orders_and_clicks_is_folded_by_both_lanes() -> None:
    orders = make_map({"path": "t", "table": {"o": "orders"}}, "acme", fields=ORDER_FIELDS)
    clicks = make_map({"path": "t", "table": {"c": "clicks"}}, "acme")
    topics = EventTopics(TOPICS, {"orders": orders, "clicks": clicks})
    assert topics.kinds_folded(LANES["orders"].folded_kinds)["acme"] == "orders"
    assert topics.kinds_folded(LANES["browsing"].folded_kinds)["acme"] == "clicks"


def test_a_topic_of_another_kind_or_of_answers_is_refused() -> None:
    with pytest.raises(BadConfig, match="A map of the topic of orders should make orders"):
        EventTopics(TOPICS, {"a": make_map("clicks", "shop.orders")})
    with pytest.raises(BadConfig, match=r"Found shop\.scored, the topic of scored"):
        EventTopics(TOPICS, {"a": make_map("clicks", "shop.scored")})


def test_kinds_that_one_lane_folds_are_not_mapped_from_one_topic() -> None:
    kind = {"path": "t", "table": {"c": "clicks", "s": "searches"}}
    fields = {**CLICK_FIELDS, "query": "q"}
    with pytest.raises(BadConfig, match="at most one kind among clicks, impressions, searches"):
        EventTopics(TOPICS, {"a": make_map(kind, "acme", fields=fields)})
    folded = {frozenset(lane.folded_kinds) - {"judgements"} for lane in LANES.values()}
    assert folded == set(map(frozenset, FOLDED_TOGETHER))
