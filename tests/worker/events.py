"""Events with defaults for tests of the score worker, and records of its topics."""

from collections.abc import Sequence
from typing import Final

from contract.events.model import Click, Event, Line, Order, Product, Search
from contract.features.declaration import FeatureSet
from contract.features.reading import read_features
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival
from contract.settings.servers import TopicSettings
from tests.checkout import ROOT
from transport.records import Record, TopicPartition

FEATURES: Final[FeatureSet] = read_features(ROOT / "features.toml")
NOW_MS: Final = 1_700_000_000_000
KINDS: Final = TopicSettings().kinds_by_topic()


def make_order(
    event_id: str,
    *items: str,
    user: str = "u",
    ts_ms: int = NOW_MS,
    amount: float = 10.0,
    device: str | None = None,
    card: str | None = None,
) -> Order:
    return Order(
        event_id=event_id,
        ts_ms=ts_ms,
        user_id=user,
        lines=tuple(Line(item_id=item, quantity=1, unit_price=1.0) for item in items or ("i",)),
        amount=amount,
        currency="EUR",
        payment_method="card",
        device_id=device,
        card_id=card,
    )


def make_click(event_id: str, item: str = "i", *, user: str = "u", ts_ms: int = NOW_MS) -> Click:
    return Click(event_id=event_id, ts_ms=ts_ms, user_id=user, item_id=item)


def make_search(event_id: str, *items: str, user: str = "u", query: str = "red shoes") -> Search:
    return Search(event_id=event_id, ts_ms=NOW_MS, user_id=user, query=query, items=items or None)


def make_product(
    item: str,
    *,
    price: float = 1.0,
    available: bool = True,
    stock: int | None = None,
    category: str | None = None,
    brand: str | None = None,
    seller: str | None = None,
    ts_ms: int = NOW_MS,
) -> Product:
    return Product(
        event_id=f"p-{item}",
        ts_ms=ts_ms,
        item_id=item,
        title=f"thing {item}",
        price=price,
        currency="EUR",
        available=available,
        stock=stock,
        category=category,
        brand=brand,
        seller_id=seller,
    )


def make_record(
    value: Event | bytes | None, offset: int = 0, *, topic: str = "shop.orders", partition: int = 0
) -> Record:
    """A record with a key and a header, and the timestamp of these events."""
    content = to_json(value) if isinstance(value, Event) else value
    return Record(TopicPartition(topic, partition), offset, b"key", content, [("trace", b"\x00\xff")], NOW_MS)


def make_arrivals(*events: Event, topic: str = "shop.orders", partition: int = 0) -> Sequence[Arrival]:
    """Events of one partition, at offsets from 0."""
    source = f"{KINDS[topic]}/{partition}"
    return [Arrival(source, offset, event, topic, partition) for offset, event in enumerate(events)]
