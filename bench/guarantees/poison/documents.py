"""Documents of events as fragments of JSON by field: full ones of every kind, made of the structs of the events."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import fields

from bench.guarantees.poison.values import Fragment
from contract.events.model import KINDS, Line

Fields = dict[str, Fragment]
BASE_MS: Final = 1_764_000_060_000
ERASED_MS: Final = 1_000_000_000_000  # before all other events, so that an erasure leaves them
LINE: Final[Mapping[str, Fragment]] = {
    "item_id": b'"i1"',
    "quantity": b"2",
    "unit_price": b"9.99",
    "seller_id": b'"s1"',
}
FIELDS: Final[Mapping[str, Fragment]] = {
    "ts_ms": str(BASE_MS).encode(),
    "user_id": b'"u1"',
    "guest_id": b'"g1"',
    "attributes": b'{"browser": "firefox", "age": 34, "gift": true, "taste": [0.5, 1, 2], "email": "a@example.com"}',
    "item_id": b'"i2"',
    "session_id": b'"w-3"',
    "surface": b'"home"',
    "platform": b'"web"',
    "query": b'"blue mug"',
    "rank": b"3",
    "recommendation_id": b'"r1"',
    "device_id": b'"d1"',
    "ip": b'"203.0.113.9"',
    "items": b'["i0", "i1", "i2"]',
    "amount": b"19.98",
    "currency": b'"EUR"',
    "payment_method": b'"card"',
    "card_id": b'"c1"',
    "shipping_country": b'"DE"',
    "billing_country": b'"DE"',
    "account_created_ms": b"1700000000000",
    "rating": b"4.5",
    "text": b'"A fine mug."',
    "order_id": b'"o1"',
    "seller_id": b'"s1"',
    "title": b'"Blue mug"',
    "price": b"9.99",
    "available": b"true",
    "description": b'"Holds tea."',
    "brand": b'"Hearth"',
    "category": b'"kitchen"',
    "stock": b"12",
    "vector": b"[0.5, 1.5]",
    "judged_event_id": b'"o1"',
    "task": b'"fraud"',
    "value": b"1",
    "entities": b'["user:u1", "device:d1", "card:c1", "item:i1"]',
}


def write_object(parts: Mapping[str, Fragment]) -> Fragment:
    return b"{" + b", ".join(b'"%s": %s' % (name.encode(), value) for name, value in parts.items()) + b"}"


def make_fields(kind: str, event_id: str) -> Fields:
    """A valid event with every field of its kind."""
    given = {**FIELDS, "event_id": f'"{event_id}"'.encode(), "lines": b"[" + write_object(LINE) + b"]"}
    if kind == "erasures":
        given |= {"ts_ms": str(ERASED_MS).encode(), "user_id": b'"erased"'}
    return {field.name: given[field.name] for field in fields(KINDS[kind])}


def list_required(kind: str) -> tuple[str, ...]:
    return tuple(field.name for field in fields(KINDS[kind]) if field.required)


def list_line_fields(kind: str) -> tuple[str, ...]:
    """The fields of a line of this kind's events, none if they have no lines."""
    has_lines = any(field.name == "lines" for field in fields(KINDS[kind]))
    return tuple(field.name for field in fields(Line)) if has_lines else ()


def with_line(document: Fields, line: Mapping[str, Fragment]) -> Fields:
    return {**document, "lines": b"[" + write_object(line) + b"]"}
