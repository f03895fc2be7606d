"""The traffic of the ledger: few entities that meet often, retries of producers, odd times, all kinds of bad records.

The same seed gives the same records; only the times follow `now_ms`.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

Fields = dict[str, Any]

DAY_MS: Final = 86_400_000
AGES_MS: Final = (0, 0, 0, 1_000, 60_000, 1_800_000, 7_200_000, DAY_MS, 9 * DAY_MS, 40 * DAY_MS)
YEAR_3000_MS: Final = 32_503_680_000_000
RETRIED, ODD_TIME, BAD = 0.01, 0.005, 0.02  # shares of the events


class Sent(NamedTuple):
    """A record to be produced. `reason`: why it is a bad one, None for an event."""

    kind: str
    key: str
    value: bytes | None
    event_id: str
    reason: str | None = None


def spoilt(change: Callable[[Fields], Fields]) -> Callable[[Fields], bytes]:
    return lambda fields: json.dumps(change(fields)).encode()


# How a whole event is spoilt, and the reason that its dead letter gives; some kinds of event are spoilt differently.
BAD_RECORDS: Final[Mapping[str, tuple[Callable[[Fields], bytes | None], str]]] = {
    "no value": (lambda fields: None, "empty"),
    "empty": (lambda fields: b"", "empty"),
    "not JSON": (lambda fields: b"hello", "not_json"),
    "NaN": (spoilt(lambda fields: {**fields, "extra": float("nan")}), "not_json"),
    "not UTF-8": (lambda fields: b'{"event_id": "\xff"}', "not_utf8"),
    "10,000 deep": (lambda fields: b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
    "300 KiB": (spoilt(lambda fields: {**fields, "extra": "x" * 300 * 1_024}), "too_large"),
    "1e400": (lambda fields: json.dumps(fields).encode()[:-1] + b', "ts_ms": 1e400}', "out_of_range"),
    "a negative time": (spoilt(lambda fields: {**fields, "ts_ms": -1}), "out_of_range"),
    "text for a number": (spoilt(lambda fields: {**fields, "ts_ms": "now"}), "wrong_type"),
    "no user": (spoilt(lambda fields: {k: v for k, v in fields.items() if k != "user_id"}), "missing_field"),
    "a control character": (spoilt(lambda fields: {**fields, "user_id": "u\u0000"}), "bad_id"),
}
ORDERS_ONLY: Final[Mapping[str, tuple[Callable[[Fields], bytes | None], str]]] = {
    "a negative amount": (spoilt(lambda fields: {**fields, "amount": -1.0}), "out_of_range"),
    "an amount of 1e400": (lambda fields: json.dumps(fields).encode()[:-1] + b', "amount": 1e400}', "out_of_range"),
    "2,001 lines": (spoilt(lambda fields: {**fields, "lines": fields["lines"][:1] * 2_001}), "too_long"),
}


class Traffic:
    """Makes one lane's records, one after the other, from a seed. `retried`: the share that is sent twice."""

    def __init__(self, *, lane: str, seed: int, now_ms: Callable[[], int], retried: float = RETRIED) -> None:
        self.lane, self.now_ms, self.retried = lane, now_ms, retried
        self.rng = random.Random(f"{lane} {seed}")
        self.made = 0
        self.main: list[Sent] = []

    def next(self) -> list[Sent]:
        """One order or click, and now and then what goes along: a retry, a bad record, a review, a judgement."""
        kind = "orders" if self.lane == "orders" else "clicks"
        event = self.record(kind)
        self.main = [*self.main[-200:], event]
        sent = [event]
        if self.rng.random() < self.retried:
            sent.append(self.rng.choice(self.main))
        if self.rng.random() < BAD:
            sent.append(self.bad(kind))
        if self.rng.random() < 0.1:
            sent.append(self.record(self.rng.choice(BESIDE[self.lane])))
        return sent

    def record(self, kind: str) -> Sent:
        fields = self.fields(kind)
        return Sent(kind, fields["user_id"], json.dumps(fields).encode(), fields["event_id"])

    def bad(self, kind: str) -> Sent:
        ways = {**BAD_RECORDS, **(ORDERS_ONLY if kind == "orders" else {})}
        spoil, reason = ways[self.rng.choice(sorted(ways))]
        fields = self.fields(kind)
        return Sent(kind, fields["user_id"], spoil(fields), fields["event_id"], reason)

    def fields(self, kind: str) -> Fields:
        """A whole event. Devices and cards are shared by many users, so that one batch's events know of one another."""
        self.made += 1
        rng = self.rng
        ts_ms = YEAR_3000_MS if rng.random() < ODD_TIME else self.now_ms() - rng.choice(AGES_MS)
        fields = {"event_id": f"{kind}-{self.made}", "ts_ms": ts_ms, "user_id": f"u{rng.randrange(400)}"}
        return fields | FIELDS[kind](self)

    def places(self) -> Fields:
        rng = self.rng
        return {
            "device_id": rng.choice((None, f"d{rng.randrange(60)}")),
            "ip": rng.choice((None, f"10.0.0.{rng.randrange(60)}", "2001:DB8::1")),
        }

    def item(self) -> str:
        return f"i{self.rng.randrange(300)}"

    def order(self) -> Fields:
        rng = self.rng
        lines: list[Fields] = [
            {
                "item_id": self.item(),
                "quantity": rng.randint(1, 3),
                "unit_price": rng.choice((0.01, 9.99, 250.0)),
                "seller_id": f"s{rng.randrange(20)}",
            }
            for _ in range(rng.choice((1, 1, 2, 4)))
        ]
        card = rng.choice((None, f"c{rng.randrange(60)}"))
        amount = round(sum(line["quantity"] * line["unit_price"] for line in lines), 2)
        paid = {"amount": amount, "currency": "EUR", "payment_method": "card", "card_id": card}
        return {"lines": lines, **paid, **self.places()}

    def click(self) -> Fields:
        return {"item_id": self.item(), "surface": self.rng.choice(("home", "search", None)), **self.places()}

    def review(self) -> Fields:
        return {"item_id": self.item(), "rating": self.rng.choice((0.5, 4, 5)), "seller_id": "s1", **self.places()}

    def judgement(self) -> Fields:
        rng = self.rng
        named = [f"user:u{rng.randrange(400)}", f"device:d{rng.randrange(60)}", f"card:c{rng.randrange(60)}"]
        told = {"task": rng.choice(("fraud", "fraud", "cancellation")), "value": rng.choice((0, 1))}
        return {"judged_event_id": f"orders-{rng.randint(1, self.made)}", "entities": named, **told}

    def impression(self) -> Fields:
        return {"items": [self.item() for _ in range(8)], "surface": "home"}

    def search(self) -> Fields:
        return {"query": self.rng.choice(("red shoes", "tea", "garden chair"))}


BESIDE: Final = {"orders": ("reviews", "judgements"), "browsing": ("impressions", "searches")}
FIELDS: Final[Mapping[str, Callable[[Traffic], Fields]]] = {
    "orders": Traffic.order,
    "clicks": Traffic.click,
    "reviews": Traffic.review,
    "judgements": Traffic.judgement,
    "impressions": Traffic.impression,
    "searches": Traffic.search,
}
