"""Which entities each kind of event updates, and by what amount."""

import pytest

from contract.events.model import (
    Click,
    Erasure,
    Event,
    Impression,
    Judgement,
    Label,
    Line,
    Order,
    Product,
    Review,
    Search,
)
from contract.profiles.entity_updates import extract_updates, to_minor_units

COMMON_FIELDS = {"event_id": "e", "ts_ms": 1, "user_id": "u"}


def test_an_order_updates_user_device_ip_card_items_and_sellers() -> None:
    # given
    lines = (
        Line(item_id="i1", quantity=2, unit_price=1.25, seller_id="s"),
        Line(item_id="i2", quantity=1, unit_price=4.0, seller_id="s"),
        Line(item_id="i1", quantity=1, unit_price=1.0),
    )
    order = Order(
        **COMMON_FIELDS,  # type: ignore[arg-type]
        lines=lines,
        amount=7.5,
        currency="EUR",
        payment_method="card",
        card_id="c",
        device_id="d",
        ip="2001:DB8::1",
    )
    # then
    assert list(extract_updates(order)) == [
        ("user:u", 750),
        ("device:d", 750),
        ("ip:2001:db8::/64", 750),
        ("card:c", 750),
        ("item:i1", 350),
        ("item:i2", 400),
        ("seller:s", 650),
    ]


@pytest.mark.parametrize(
    ("event", "updates"),
    [
        (
            Click(**COMMON_FIELDS, item_id="i", device_id="d", ip="10.0.0.1"),  # type: ignore[arg-type]
            {"user:u": 0, "item:i": 0, "device:d": 0, "ip:10.0.0.1": 0},
        ),
        (Click(**COMMON_FIELDS, item_id="i"), {"user:u": 0, "item:i": 0}),  # type: ignore[arg-type]
        (
            Review(**COMMON_FIELDS, item_id="i", rating=3.335, seller_id="s"),  # type: ignore[arg-type]
            {"user:u": 334, "item:i": 334, "seller:s": 334},
        ),
        (Impression(**COMMON_FIELDS, items=("a", "b", "a")), {"user:u": 3}),  # type: ignore[arg-type]
        (Search(**COMMON_FIELDS, query="q"), {"user:u": 0}),  # type: ignore[arg-type]
        (Label(**COMMON_FIELDS, judged_event_id="o", task="fraud", value=1.0), {}),  # type: ignore[arg-type]
        (Erasure(**COMMON_FIELDS), {}),  # type: ignore[arg-type]
        (Product(event_id="e", ts_ms=1, item_id="i", title="t", price=1.0, currency="EUR", available=True), {}),
    ],
)
def test_each_kind_updates_its_own_entities(event: Event, updates: dict[str, int]) -> None:
    assert dict(extract_updates(event)) == updates


def test_a_judgement_updates_its_entities_of_known_kinds_once() -> None:
    # given
    names = ("card:c", "planet:x", "user:a", "card:c", "")
    judgement = Judgement(**COMMON_FIELDS, judged_event_id="o", task="fraud", value=1.0, entities=names)  # type: ignore[arg-type]
    # then
    assert list(extract_updates(judgement)) == [("card:c", 0), ("user:a", 0)]


@pytest.mark.parametrize(("money", "hundredths"), [(0.0, 0), (19.99, 1999), (0.29, 29), (1e9, 10**11), (0.004, 0)])
def test_money_becomes_whole_hundredths(money: float, hundredths: int) -> None:
    assert to_minor_units(money) == hundredths


def test_the_addresses_of_a_network_of_64_bits_are_one_entity() -> None:
    entities = [
        extract_updates(Click(**COMMON_FIELDS, item_id="i", ip=ip))[-1][0]  # type: ignore[arg-type]
        for ip in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "203.0.113.9")
    ]
    assert entities == ["ip:2001:db8::/64", "ip:2001:db8::/64", "ip:2001:db8:0:1::/64", "ip:203.0.113.9"]


def test_the_events_of_a_guest_update_no_user_and_no_link_to_one() -> None:
    # given an order without a user, and with one line without an item
    line = {"quantity": 1, "unit_price": 1.0}
    lines = (Line(item_id="", **line), Line(item_id="i", **line))  # type: ignore[arg-type]
    order = Order(
        event_id="o",
        ts_ms=1,
        user_id="",
        lines=lines,
        amount=2.0,
        currency="EUR",
        payment_method="card",
        device_id="d",
    )
    # then only what is known is updated
    assert extract_updates(order) == [("device:d", 200), ("item:i", 100)]
    assert extract_updates(Search(event_id="s", ts_ms=1, user_id="", query="q")) == []
