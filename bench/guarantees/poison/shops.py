"""Shops that read the same odd records: by the defaults, with all declared, with maps, with a schema registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.guarantees.poison.documents import BASE_MS
from bench.guarantees.poison.framed import FRAMES, are_packages_installed, register_schemas
from contract.events.model import KINDS
from contract.events.reading import EventReaders
from contract.features.declaration import FeatureSet
from contract.features.reading import read_features
from contract.settings.reading import Settings
from testkit.checkout import ROOT
from transport.record_reader import RecordReader, open_record_reader

Wrap = Callable[[bytes], bytes]
OWN_FEATURES: Final = """
[[features]]
name = "browser"
group = "context"
kind = "category"
source = "event.attributes.browser"

[[features]]
name = "age"
group = "order"
kind = "number"
source = "event.attributes.age"

[[features]]
name = "gift_text"
group = "order"
kind = "text"
source = "event.attributes.gift"

[[features]]
name = "taste"
group = "context"
kind = "vector"
size = 3
source = "event.attributes.taste"

[[features]]
name = "email_orders"
group = "order"
kind = "number"
source = "profile.email.orders.count_30d"
"""
DECLARED: Final[Mapping[str, Any]] = {
    "intake": {
        "times": {"clicks": "s", "orders": "iso", "reviews": "us", "searches": "ns"},
        "money": {"orders": "minor", "products": "minor"},
        "rates": {"EUR": 1.0, "JPY": 0.006, "usd": 0.9, "KWD": 3.0},
        "doubtful_times": "refuse",
    },
    "entities": {
        "email": {"source": "event.attributes.email", "ignore_case": True},
        "payment": {"source": "event.payment_method"},
    },
    "tasks": [
        {"name": "fraud", "kind": "binary", "groups": ["order"], "graph": "decide"},
        {"name": "stars", "kind": "graded", "groups": ["order"], "graph": "decide"},
        {"name": "spent", "kind": "regression", "groups": ["order"], "graph": "decide"},
        {"name": "reason", "kind": "multiclass", "groups": ["order"], "graph": "decide"},
    ],
}


def map_fields(kind: str, path: str, **others: Any) -> dict[str, Any]:
    """A source for each field of a kind, below a path; `others` replace some."""
    names = [info.name for info in msgspec.structs.fields(KINDS[kind])]
    sources: dict[str, Any] = {name: f"{path}{name}" for name in names}
    if "lines" in sources:
        sources["lines"] = {
            name: f"{path}lines[].{name}" for name in ("item_id", "quantity", "unit_price", "seller_id")
        }
    return {**sources, **others}


MAPPED: Final[Mapping[str, Any]] = {
    "map": {
        "orders": {
            "topics": ["shop.orders"],
            "kind": "orders",
            "fields": map_fields(
                "orders",
                "",
                user_id={"path": ["user_id", "lines[0].item_id"], "header": "user", "key": True},
                ts_ms={"path": ["ts_ms", "lines[-1].quantity"], "unit": "s"},
                account_created_ms={"path": "account_created_ms", "unit": "iso"},
                amount={"path": "amount", "unit": "minor"},
                currency={"path": "currency", "table": {"true": "EUR", "1": "USD"}, "default": "EUR"},
                platform={"path": "attributes.browser", "table": {"firefox": "web"}},
                card_id={"key": "id"},
                attributes={"browser": "attributes.browser", "all": "attributes", "i1": "lines[item_id=i1].quantity"},
            ),
        },
        "clicks": {
            "topics": ["shop.clicks"],
            "envelope": "cloudevents",
            "kind": {"path": ["type", "data.user_id"], "table": {"click": "clicks", "label": "labels", "u1": "clicks"}},
            "fields": {
                **map_fields("labels", "data."),
                **map_fields("clicks", "data.", ts_ms={"path": "data.ts_ms", "unit": "us"}),
            },
        },
        "reviews": {
            "topics": ["shop.reviews"],
            "envelope": "debezium",
            "kind": "reviews",
            "fields": map_fields("reviews", "after.", ts_ms={"path": "after.ts_ms", "unit": "iso"}),
        },
        "products": {
            "topics": ["shop.products"],
            "envelope": "debezium",
            "kind": "products",
            "changes": ["c", "u", "d", "r"],
            "fields": map_fields("products", "after.", price={"path": "after.price", "unit": "minor"}),
        },
        "searches": {
            "topics": ["shop.searches"],
            "kind": {"header": "type", "path": "user_id", "key": "id", "table": {"u1": "searches"}},
            "fields": map_fields("searches", "", items="items[].id", ts_ms={"path": "ts_ms", "unit": "ns"}),
        },
        "impressions": {
            "topics": ["shop.impressions"],
            "kind": "impressions",
            "fields": map_fields("impressions", "", items={"path": ["items[].id", "items"], "default": ["i1"]}),
        },
        "labels": {
            "topics": ["shop.labels"],
            "kind": "labels",
            "fields": map_fields("labels", "", value={"path": "value", "table": {"true": 1, "false": 0}}),
        },
    }
}  # fmt: skip
TIME: Final = str(BASE_MS).encode()


def in_seconds(value: bytes) -> bytes:
    return value.replace(TIME, TIME[:-3])


def in_iso(value: bytes) -> bytes:
    return value.replace(TIME, b'"2025-11-24T16:01:00Z"')


def in_microseconds(value: bytes) -> bytes:
    return value.replace(TIME, TIME + b"000")


def in_nanoseconds(value: bytes) -> bytes:
    return value.replace(TIME, TIME + b"000000")


UNITS: Final[Mapping[str, Wrap]] = {
    "clicks": in_seconds,
    "orders": in_iso,
    "reviews": in_microseconds,
    "searches": in_nanoseconds,
}
WRAPS: Final[Mapping[str, Wrap]] = {
    "orders": in_seconds,
    "searches": in_nanoseconds,
    "clicks": lambda value: b'{"specversion": "1.0", "type": "click", "data": %s}' % in_microseconds(value),
    "reviews": lambda value: b'{"payload": {"op": "c", "after": %s}}' % in_iso(value),
    "products": lambda value: b'{"op": "u", "before": null, "after": %s}' % value,
}


@dataclass(frozen=True, slots=True)
class Shop:
    """A shop of the check. `wraps`: what gives every second record of a kind the shop's envelope and unit of time."""

    name: str
    settings: Settings
    features: FeatureSet
    wraps: Mapping[str, Wrap] = field(default_factory=dict)

    def open_reader(self, readers: EventReaders) -> RecordReader:
        """The reader of its records; a registry is the client's mock, with the schemas of `framed`."""
        if not self.settings.registry.url:
            return open_record_reader(self.settings, readers)
        from transport.schemas.deserializer import Deserializer

        deserializer = Deserializer(self.settings.registry)
        register_schemas(deserializer.client)
        return RecordReader(self.settings.event_topics(), readers, deserializer)


def make_shops(folder: Path) -> list[Shop]:
    """The shops; their files are written to `folder`. One with a registry needs the packages of the group `schemas`."""
    declared, stock_features = Settings(**DECLARED), read_features(ROOT / "features.toml")
    path = folder / "features.toml"
    path.write_text((ROOT / "features.toml").read_text() + OWN_FEATURES)
    shops = [
        Shop("plain", Settings(), stock_features),
        Shop("declared", declared, read_features(path, declared.entity_kinds().declared), UNITS),
        Shop("mapped", Settings(**MAPPED), stock_features, WRAPS),
    ]
    if are_packages_installed():
        registry: dict[str, Any] = {"registry": {"url": "mock://poison"}}
        shops.append(Shop("framed", Settings(**registry), stock_features, FRAMES))
    return shops
