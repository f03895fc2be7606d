"""Malformed records, each with the reason of its dead letter."""

from typing import Final, NamedTuple

from demo.simulator.records import SourceRecord


class MalformedRecord(NamedTuple):
    """A value for the topic of `kind`, and the reason of its dead letter."""

    kind: str
    value: bytes
    reason: str


ORDER_TEMPLATE: Final = (
    b'{"event_id": "%s", "ts_ms": 1, "user_id": "u0001", "lines": [{"item_id": "i0001", "quantity": %s, '
    b'"unit_price": 9.5}], "amount": %s, "currency": "EUR", "payment_method": "card"}'
)

MALFORMED_RECORDS: Final = (
    MalformedRecord("orders", b'{"event_id": "bad1", "ts_ms": 1, "user_id": ', "not_json"),
    MalformedRecord("clicks", b"\xff\xfe\x00", "not_utf8"),
    MalformedRecord("orders", ORDER_TEMPLATE % (b"bad2", b"-3", b"9.5"), "out_of_range"),
    MalformedRecord("clicks", b'{"event_id": "bad3", "ts_ms": 1, "item_id": "i0001"}', "missing_field"),
    MalformedRecord("orders", ORDER_TEMPLATE % (b"bad4", b"1", b"NaN"), "out_of_range"),
    MalformedRecord("searches", b'{"event_id": "bad5", "ts_ms": 1, "user_id": "u0001", "query": [7]}', "wrong_type"),
    MalformedRecord("orders", ORDER_TEMPLATE % (b"bad6" + b"-" * 125, b"1", b"9.5"), "bad_id"),
    MalformedRecord("clicks", b'{"event_id": "bad8", "more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
    MalformedRecord("orders", ORDER_TEMPLATE % (b"bad7", b"1", b"1e400"), "out_of_range"),
    MalformedRecord("clicks", b"", "empty"),
    MalformedRecord("orders", b'{"event_id": "bad9", "text": "' + b"x" * 300_000 + b'"}', "too_large"),
    MalformedRecord(
        "orders",
        b'{"event_id": "bad10", "ts_ms": 1, "user_id": "u0001", "lines": [], "amount": 1, "currency": "EUR", '
        b'"payment_method": "card"}',
        "too_long",
    ),
)


def make_malformed(number: int, ts_ms: int) -> SourceRecord:
    """The malformed record with this number (modulo their count), at `ts_ms`."""
    kind, value, reason = MALFORMED_RECORDS[number % len(MALFORMED_RECORDS)]
    return SourceRecord(kind, f"u{number % 50:04d}", value, ts_ms, reason)
