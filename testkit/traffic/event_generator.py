"""Generates events of few entities that occur together often, producer retries, odd timestamps and bad records.

The same seed gives the same records; only the timestamps follow `now_ms`.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from contract.units import DAY_MS

Fields = dict[str, Any]

AGES_MS: Final = (0, 0, 0, 1_000, 60_000, 1_800_000, 7_200_000, DAY_MS, 9 * DAY_MS, 40 * DAY_MS)
USERS: Final = 400
YEAR_3000_MS: Final = 32_503_680_000_000
RETRY_SHARE, ODD_TIME_SHARE, BAD_SHARE = 0.01, 0.005, 0.02  # shares of the events


class TrafficRecord(NamedTuple):
    """A record to produce. `reason`: the dead-letter reason of a bad record, None for a valid event."""

    kind: str
    key: str
    value: bytes | None
    event_id: str
    reason: str | None = None


def corrupt_json(change: Callable[[Fields], Fields]) -> Callable[[Fields], bytes]:
    return lambda fields: json.dumps(change(fields)).encode()


# How a valid event is corrupted, and the reason that its dead letter should give.
BAD_RECORDS: Final[Mapping[str, tuple[Callable[[Fields], bytes | None], str]]] = {
    "no value": (lambda fields: None, "empty"),
    "empty": (lambda fields: b"", "empty"),
    "not JSON": (lambda fields: b"hello", "not_json"),
    "NaN": (corrupt_json(lambda fields: {**fields, "ts_ms": float("nan")}), "out_of_range"),
    "not UTF-8": (lambda fields: b'{"event_id": "\xff"}', "not_utf8"),
    "10,000 levels deep": (lambda fields: b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
    "300 KiB": (corrupt_json(lambda fields: {**fields, "extra": "x" * 300 * 1_024}), "too_large"),
    "1e400": (lambda fields: json.dumps(fields).encode()[:-1] + b', "ts_ms": 1e400}', "out_of_range"),
    "a negative time": (corrupt_json(lambda fields: {**fields, "ts_ms": -1}), "out_of_range"),
    "text for a number": (corrupt_json(lambda fields: {**fields, "ts_ms": "now"}), "wrong_type"),
    "no user": (corrupt_json(lambda fields: {k: v for k, v in fields.items() if k != "user_id"}), "missing_field"),
    "an id of 129 characters": (corrupt_json(lambda fields: {**fields, "user_id": "u" * 129}), "bad_id"),
    "a placeholder": (corrupt_json(lambda fields: {**fields, "event_id": "undefined"}), "placeholder_id"),
}
ORDERS_ONLY: Final[Mapping[str, tuple[Callable[[Fields], bytes | None], str]]] = {
    "a negative amount": (corrupt_json(lambda fields: {**fields, "amount": -1.0}), "out_of_range"),
    "an amount of 1e400": (lambda fields: json.dumps(fields).encode()[:-1] + b', "amount": 1e400}', "out_of_range"),
    "2,001 lines": (corrupt_json(lambda fields: {**fields, "lines": fields["lines"][:1] * 2_001}), "too_long"),
}


class Traffic:
    """Generates one lane's records from a seed. `retry_share`: the share of events that is sent twice."""

    def __init__(self, *, lane: str, seed: int, now_ms: Callable[[], int], retry_share: float = RETRY_SHARE) -> None:
        self.lane = lane
        self.now_ms = now_ms
        self.retry_share = retry_share
        self.rng = random.Random(f"{lane} {seed}")
        self.event_count = 0
        self.recent: list[TrafficRecord] = []

    def next_records(self) -> list[TrafficRecord]:
        """One order or click, sometimes followed by a retry, a bad record or another kind of event."""
        kind = "orders" if self.lane == "orders" else "clicks"
        event = self.create_record(kind)
        self.recent = [*self.recent[-200:], event]
        records = [event]
        if self.rng.random() < self.retry_share:
            records.append(self.rng.choice(self.recent))
        if self.rng.random() < BAD_SHARE:
            records.append(self.create_bad_record(kind))
        if self.rng.random() < 0.1:
            records.append(self.create_record(self.rng.choice(SIDE_KINDS[self.lane])))
        return records

    def create_record(self, kind: str) -> TrafficRecord:
        fields = self.create_fields(kind)
        return TrafficRecord(kind, fields["user_id"], json.dumps(fields).encode(), fields["event_id"])

    def create_bad_record(self, kind: str) -> TrafficRecord:
        corruptions = {**BAD_RECORDS, **(ORDERS_ONLY if kind == "orders" else {})}
        corrupt, reason = corruptions[self.rng.choice(sorted(corruptions))]
        fields = self.create_fields(kind)
        return TrafficRecord(kind, fields["user_id"], corrupt(fields), fields["event_id"], reason)

    def create_fields(self, kind: str) -> Fields:
        """A valid event. Many users share devices and cards, so the events of a batch touch the same profiles."""
        self.event_count += 1
        rng = self.rng
        ts_ms = YEAR_3000_MS if rng.random() < ODD_TIME_SHARE else self.now_ms() - rng.choice(AGES_MS)
        fields = {"event_id": f"{kind}-{self.event_count}", "ts_ms": ts_ms, "user_id": f"u{rng.randrange(USERS)}"}
        return fields | FIELDS_BY_KIND[kind](self)

    def draw_device_and_ip(self) -> Fields:
        rng = self.rng
        return {
            "device_id": rng.choice((None, f"d{rng.randrange(60)}")),
            "ip": rng.choice((None, f"203.0.113.{rng.randrange(60)}", "2001:DB8::1")),
        }

    def draw_item(self) -> str:
        return f"i{self.rng.randrange(300)}"

    def draw_order(self) -> Fields:
        rng = self.rng
        lines: list[Fields] = [
            {
                "item_id": self.draw_item(),
                "quantity": rng.randint(1, 3),
                "unit_price": rng.choice((0.01, 9.99, 250.0)),
                "seller_id": f"s{rng.randrange(20)}",
            }
            for _ in range(rng.choice((1, 1, 2, 4)))
        ]
        card = rng.choice((None, f"c{rng.randrange(60)}"))
        amount = round(sum(line["quantity"] * line["unit_price"] for line in lines), 2)
        payment = {"amount": amount, "currency": "EUR", "payment_method": "card", "card_id": card}
        return {"lines": lines, **payment, **self.draw_device_and_ip()}

    def draw_click(self) -> Fields:
        return {
            "item_id": self.draw_item(),
            "surface": self.rng.choice(("home", "search", None)),
            **self.draw_device_and_ip(),
        }

    def draw_review(self) -> Fields:
        return {
            "item_id": self.draw_item(),
            "rating": self.rng.choice((0.5, 4, 5)),
            "seller_id": "s1",
            **self.draw_device_and_ip(),
        }

    def draw_judgement(self) -> Fields:
        rng = self.rng
        entities = [f"user:u{rng.randrange(USERS)}", f"device:d{rng.randrange(60)}", f"card:c{rng.randrange(60)}"]
        verdict = {"task": rng.choice(("fraud", "fraud", "cancellation")), "value": rng.choice((0, 1))}
        return {"judged_event_id": f"orders-{rng.randint(1, self.event_count)}", "entities": entities, **verdict}

    def draw_impression(self) -> Fields:
        return {"items": [self.draw_item() for _ in range(8)], "surface": "home"}

    def draw_search(self) -> Fields:
        return {"query": self.rng.choice(("red shoes", "tea", "garden chair"))}


SIDE_KINDS: Final = {"orders": ("reviews", "judgements"), "browsing": ("impressions", "searches")}
FIELDS_BY_KIND: Final[Mapping[str, Callable[[Traffic], Fields]]] = {
    "orders": Traffic.draw_order,
    "clicks": Traffic.draw_click,
    "reviews": Traffic.draw_review,
    "judgements": Traffic.draw_judgement,
    "impressions": Traffic.draw_impression,
    "searches": Traffic.draw_search,
}
