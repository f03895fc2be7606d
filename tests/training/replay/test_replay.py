"""Replay of historic events: the examples equal those that a worker and the joiner would have made."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contract.errors import BadData
from contract.events.model import Click, Event, Impression, Label, Line, Order, Product, Search
from contract.features.declaration import FeatureSet
from contract.history.format import HistoricEvent
from contract.messages import Example
from contract.settings.reading import read_settings
from contract.settings.worker import FeedbackSettings
from contract.units import DAY_MS, MINUTE_MS
from training.replay.event_reader import read_history
from training.replay.impression_attribution import ImpressionAttributor
from training.replay.replay import Replay

START_MS = 1_700_000_000_000
SETTINGS, FEATURES = read_settings()
FEEDBACK = FeedbackSettings()


def product_event(item_id: str, ts_ms: int = START_MS, **more: Any) -> HistoricEvent:
    fields: dict[str, Any] = {
        "title": f"{item_id} title",
        "price": 5.0,
        "currency": "EUR",
        "available": True,
        "category": "tea",
    } | more
    return HistoricEvent("products", Product(event_id=f"p{item_id}{ts_ms}", ts_ms=ts_ms, item_id=item_id, **fields))


def impression_event(event_id: str, ts_ms: int, *items: str, user_id: str = "u", **more: Any) -> HistoricEvent:
    return HistoricEvent(
        "impressions", Impression(event_id=event_id, ts_ms=ts_ms, user_id=user_id, items=items, **more)
    )


def click_event(event_id: str, ts_ms: int, item_id: str, user_id: str = "u", **more: Any) -> HistoricEvent:
    return HistoricEvent("clicks", Click(event_id=event_id, ts_ms=ts_ms, user_id=user_id, item_id=item_id, **more))


def order_event(event_id: str, ts_ms: int, *items: str, user_id: str = "u", **more: Any) -> HistoricEvent:
    lines = tuple(Line(item_id=item, quantity=1, unit_price=5.0) for item in items)
    fields: dict[str, Any] = {"amount": 5.0, "currency": "EUR", "payment_method": "card"} | more
    return HistoricEvent("orders", Order(event_id=event_id, ts_ms=ts_ms, user_id=user_id, lines=lines, **fields))


def label_event(event_id: str, ts_ms: int, judged_event_id: str, value: float, user_id: str = "u") -> HistoricEvent:
    return HistoricEvent(
        "labels",
        Label(
            event_id=event_id, ts_ms=ts_ms, user_id=user_id, judged_event_id=judged_event_id, task="fraud", value=value
        ),
    )


def replay_events(*history: HistoricEvent) -> dict[str, Example]:
    """The newest revision of each example."""
    examples: dict[str, Example] = {}
    for example in Replay(features=FEATURES, tasks=SETTINGS.tasks, feedback=FEEDBACK).run(history):
        if example.example_id not in examples or example.revision >= examples[example.example_id].revision:
            examples[example.example_id] = example
    return examples


def read_number(example: Example, group: str, feature: str, features: FeatureSet = FEATURES) -> float:
    index = [candidate.name for candidate in features.numbers(group)].index(feature)
    return float(example.groups[group].unpack().numbers[0, index])


def make_late_event(ts_ms: int = START_MS + 40 * DAY_MS) -> HistoricEvent:
    """An event long after the others, so that every wait for labels has ended."""
    return click_event("late", ts_ms, "x", user_id="other")


def test_each_displayed_item_is_an_example_with_its_click_and_purchase() -> None:
    history = [
        product_event("a"),
        impression_event("w", START_MS, "a", "b", "c", recommendation_id="h"),
        click_event("k1", START_MS + MINUTE_MS, "a", recommendation_id="h"),
        click_event("k2", START_MS + 2 * MINUTE_MS, "b", recommendation_id="h"),
        order_event("o", START_MS + 3 * MINUTE_MS, "b"),
        make_late_event(),
    ]

    actual = replay_events(*history)

    assert {name: actual[f"h~{name}"].labels for name in "abc"} == {
        "a": {"click": 1, "purchase": 0},
        "b": {"click": 1, "purchase": 1},
        "c": {"click": 0, "purchase": 0},
    }
    assert actual["h~a"].groups.keys() == {"user", "context", "item"}


def test_impressions_without_list_ids_become_examples_too() -> None:
    actual = replay_events(
        impression_event("w", START_MS, "a", "b"),
        click_event("k", START_MS + MINUTE_MS, "b"),
        make_late_event(),
    )

    assert actual["w~a"].labels["click"] == 0
    assert actual["w~b"].labels["click"] == 1


def test_a_list_is_encoded_with_the_user_after_the_last_click_before_it() -> None:
    actual = replay_events(
        click_event("k1", START_MS, "a"),
        impression_event("w1", START_MS + MINUTE_MS, "b", recommendation_id="h1"),
        click_event("k2", START_MS + 2 * MINUTE_MS, "b", recommendation_id="h1"),
        impression_event("w2", START_MS + 3 * MINUTE_MS, "c", recommendation_id="h2"),
        make_late_event(),
    )

    assert read_number(actual["h1~b"], "user", "user_clicks_count_1h") == pytest.approx(1)
    assert read_number(actual["h2~c"], "user", "user_clicks_count_1h") == pytest.approx(2)
    assert read_number(actual["h1~b"], "user", "user_clicks_gap_s") == 0


def test_the_list_of_a_new_user_does_not_include_its_own_click() -> None:
    actual = replay_events(
        impression_event("w", START_MS, "a", recommendation_id="h"),
        click_event("k", START_MS + MINUTE_MS, "a", recommendation_id="h"),
        make_late_event(),
    )

    assert actual["h~a"].labels["click"] == 1
    assert not actual["h~a"].groups["user"].unpack().ids.any()


def test_an_order_is_encoded_with_earlier_events_only() -> None:
    actual = replay_events(
        order_event("o1", START_MS, "a", amount=10.0),
        order_event("o2", START_MS + MINUTE_MS, "b", amount=20.0),
        label_event("l1", START_MS + 2 * MINUTE_MS, "o1", 0.0),
        label_event("l2", START_MS + 2 * MINUTE_MS, "o2", 1.0),
    )

    assert [read_number(actual[name], "order", "order_user_orders_sum_1h") for name in ("o1", "o2")] == [0, 1000]
    assert [actual[name].labels["fraud"] for name in ("o1", "o2")] == [0, 1]


def test_a_fraud_label_is_a_feature_of_later_orders_on_the_card() -> None:
    actual = replay_events(
        order_event("o1", START_MS, "a", card_id="c"),
        label_event("l1", START_MS + MINUTE_MS, "o1", 1.0),
        order_event("o2", START_MS + 2 * MINUTE_MS, "a", card_id="c", user_id="v"),
        label_event("l2", START_MS + 3 * MINUTE_MS, "o2", 1.0, user_id="v"),
    )

    assert read_number(actual["o1"], "order", "card_judgements_sum_30d") != 1
    assert read_number(actual["o2"], "order", "card_judgements_sum_30d") == pytest.approx(1)


def test_an_item_is_encoded_with_its_product_at_that_time() -> None:
    actual = replay_events(
        product_event("a", START_MS, price=5.0),
        impression_event("w1", START_MS + 1, "a", recommendation_id="h1"),
        product_event("a", START_MS + 2, price=9.0),
        impression_event("w2", START_MS + 3, "a", recommendation_id="h2"),
        make_late_event(),
    )

    assert [read_number(actual[name], "item", "item_price") for name in ("h1~a", "h2~a")] == [5, 9]


def test_the_click_of_a_search_is_its_relevance_label() -> None:
    search = Search(event_id="q", ts_ms=START_MS, user_id="u", query="green tea", items=("a", "b"))

    actual = replay_events(
        HistoricEvent("searches", search),
        click_event("k", START_MS + MINUTE_MS, "b", query="green tea"),
        make_late_event(),
    )

    assert {name: actual[f"q~{name}"].labels["relevance"] for name in "ab"} == {"a": 0, "b": 1}


def test_each_product_is_an_example_of_its_category() -> None:
    actual = replay_events(
        product_event("a", START_MS),
        product_event("a", START_MS + 1, category="cups"),
        product_event("b", START_MS, category=None),
    )

    assert actual["product~a"].labels == {"category": "cups"}
    assert actual["product~b"].labels == {}


def test_examples_do_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    history = []
    for n in range(200):
        user, item, ts_ms = f"u{rng.integers(4)}", f"i{rng.integers(5)}", START_MS + n * 30_000
        if n % 2:
            history.append(click_event(f"k{n}", ts_ms, item, user_id=user))
        else:
            history.append(impression_event(f"w{n}", ts_ms, "i0", item, user_id=user))
    history.append(make_late_event())

    actual = []
    for size in (1, 7, 500):
        monkeypatch.setattr("training.replay.replay.BATCH_MAX", size)
        actual.append(replay_events(*history))

    assert actual[0] == actual[1] == actual[2]
    assert len(actual[0]) > 100


def test_clicks_are_attributed_to_the_latest_open_list_with_their_item() -> None:
    attributor = ImpressionAttributor(click_wait_ms=10 * MINUTE_MS)
    for impression in (impression_event("w1", START_MS, "a", "b"), impression_event("w2", START_MS + MINUTE_MS, "a")):
        attributor.attribute(impression.event)

    def list_of(click: HistoricEvent) -> str | None:
        event: Event = attributor.attribute(click.event)
        assert isinstance(event, Click)
        return event.recommendation_id

    assert list_of(click_event("k", START_MS + 2 * MINUTE_MS, "a")) == "w2"
    assert list_of(click_event("k", START_MS + 2 * MINUTE_MS, "b")) == "w1"
    assert list_of(click_event("k", START_MS + 10 * MINUTE_MS, "b")) == "w1"
    assert list_of(click_event("k", START_MS + 10 * MINUTE_MS + 1, "b")) is None
    assert list_of(click_event("k", START_MS + 2 * MINUTE_MS, "a", user_id="v")) is None
    assert list_of(click_event("k", START_MS + 2 * MINUTE_MS, "a", recommendation_id="r")) == "r"
    assert list_of(click_event("k", START_MS + 2 * MINUTE_MS, "a", query="tea")) is None


def test_lines_are_read_in_order_and_invalid_events_are_counted(tmp_path: Path) -> None:
    valid = [
        {"kind": historic.kind, "event": msgspec.to_builtins(historic.event)}
        for historic in (product_event("a"), order_event("o", START_MS, "a"))
    ]
    invalid = {"kind": "clicks", "event": {"event_id": "k", "ts_ms": START_MS, "user_id": "a", "item_id": "i" * 129}}
    (tmp_path / "h.jsonl").write_text("\n".join(json.dumps(line) for line in (valid[0], invalid, valid[1])) + "\n\n")
    rejected = Counter[str]()

    actual = list(read_history([tmp_path / "h.jsonl"], rejected))

    assert [historic.kind for historic in actual] == ["products", "orders"]
    assert rejected == {"bad_id": 1}


@pytest.mark.parametrize("line", ["not json", '{"kind": "orders"}', '{"kind": "dreams", "event": {}}', "[]"])
def test_a_line_of_another_form_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "h.jsonl").write_text(f"\n{line}\n")

    with pytest.raises(BadData, match=r"h\.jsonl:2 should"):
        list(read_history([tmp_path / "h.jsonl"], Counter()))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="should be a readable file"):
        list(read_history([tmp_path / "none.jsonl"], Counter()))
