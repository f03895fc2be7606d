"""A simulated shop for `python -m bench join`: records in the order in which Kafka gets them, and what is true of them.

The simulator decides what happens and when it is known, so it knows what each example should say in the end; nothing of
it comes from the joiner. Items, searches and orders are of one visit each, so no two truths can be mixed up.
"""

import random
import zlib

import numpy as np

from bench.join_truth import (
    CLICK_MS,
    GRACE_MS,
    HOUR_MS,
    ITEMS,
    KINDS,
    MINUTE_MS,
    PARTITIONS,
    PURCHASE_MS,
    PURCHASE_WINDOW_MS,
    SECOND_MS,
    SHOWN,
    TAIL_MS,
    USERS,
    WINDOW_MS,
    Sent,
    Truth,
    last,
)
from contract.events import Click, Event, Impression, Label, Line, Order
from contract.features.declaration import Block
from contract.messages import ScoredKind, ScoredRow, pack, to_json, to_msgpack


class World:
    """Visits at an even pace over `hours`, until there are `events` records."""

    def __init__(self, *, events: int, hours: float, begin_ms: int, seed: int) -> None:
        self._rng, self._arrays = random.Random(f"join {seed}"), np.random.default_rng(seed)
        self._begin_ms, self._span_ms, self._events = begin_ms, round(hours * HOUR_MS), events
        self.records: list[Sent] = []
        self.truths: dict[str, Truth] = {}
        self.orphans = 0  # labels that name an order that never was
        self.sent: dict[str, int] = dict.fromkeys(
            ("early", "late", "duplicated", "foreign", "orphaned"), 0
        )  # labels by what is odd about them
        self._visit = 0

    def run(self) -> None:
        """Let everything happen; records are in the order of their arrival, with a last one in each partition."""
        visits = (self._list, self._list, self._order, self._order, self._search)
        while len(self.records) < self._events:
            self._visit += 1
            ts_ms = self._begin_ms + self._rng.randrange(self._span_ms)
            self._rng.choice(visits)(self._user(), ts_ms)
        self.records.sort(key=lambda record: record.arrival_ms)
        end_ms = self._begin_ms + self._span_ms + TAIL_MS
        for kind in KINDS:
            for partition in range(PARTITIONS):
                self._send(kind, last(kind, f"{kind}-{partition}", end_ms), partition=partition)

    def _list(self, user: str, ts_ms: int) -> None:
        rng, items = self._rng, tuple(f"i{self._visit}-{n}" for n in range(ITEMS))
        row = self._row("recommendation", f"r{self._visit}", user, ts_ms, items)
        shown_ms = ts_ms + rng.randrange(SECOND_MS, 100 * MINUTE_MS)
        self._send(
            "impressions",
            Impression(
                event_id=f"s{self._visit}",
                ts_ms=shown_ms,
                user_id=user,
                items=items[:SHOWN],
                recommendation_id=row.event_id,
            ),
        )
        for at, item in enumerate(items[:SHOWN]):
            truth = self.truths[f"{row.event_id}~{item}"] = Truth(row, at)
            truth.waited_ms = dict.fromkeys(("click", "purchase"), shown_ms + CLICK_MS)
            for task in ("click", "purchase"):
                truth.say(task, 0.0, shown_ms + CLICK_MS)
            self._follow_up(truth, item, shown_ms)

    def _follow_up(self, truth: Truth, item: str, shown_ms: int) -> None:
        """What becomes of an item that was shown: nothing mostly, or a click in time, in the grace, or too late."""
        fate = self._rng.choices(
            ("none", "in time", "in grace", "too late", "foreign", "orphan"), (55, 33, 4, 3, 3, 2)
        )[0]
        after_ms = {
            "in time": self._rng.randrange(1, CLICK_MS),
            "in grace": self._rng.randrange(CLICK_MS + 1, CLICK_MS + GRACE_MS - MINUTE_MS),
            "too late": self._rng.randrange(CLICK_MS + GRACE_MS + 1, 2 * HOUR_MS),
        }.get(fate, MINUTE_MS)
        if fate == "none":
            return
        click = Click(
            event_id=f"c-{item}",
            ts_ms=shown_ms + after_ms,
            user_id=self._user(but=truth.row.user_id) if fate == "foreign" else truth.row.user_id,
            item_id=item,
            recommendation_id=f"gone{self._visit}" if fate == "orphan" else truth.row.event_id,
        )
        self._send("clicks", click, again=0.1)
        if fate in ("in time", "in grace"):
            truth.tell("click", 1.0, click, in_window=fate == "in time")
            self._buy(truth, item, click.ts_ms)

    def _buy(self, truth: Truth, item: str, clicked_ms: int) -> None:
        truth.say("purchase", 0.0, clicked_ms + PURCHASE_MS)
        if truth.facts[0].in_window:  # else silence has spoken of both before the click
            truth.waited_ms["purchase"] = clicked_ms + PURCHASE_MS
        fate = self._rng.choices(("none", "soon", "later", "too late"), (60, 20, 15, 5))[0]
        if fate == "none":
            return
        after_ms = {
            "soon": self._rng.randrange(1, PURCHASE_MS),
            "later": self._rng.randrange(PURCHASE_MS + 1, PURCHASE_WINDOW_MS),
            "too late": self._rng.randrange(PURCHASE_WINDOW_MS + 1, PURCHASE_WINDOW_MS + 2 * HOUR_MS),
        }[fate]
        order = self._ordered(f"b-{item}", truth.row.user_id, clicked_ms + after_ms, item)
        if fate != "too late":
            truth.tell("purchase", 1.0, order)

    def _order(self, user: str, ts_ms: int) -> None:
        """An order, and what is said of it later."""
        order = self._ordered(f"o{self._visit}", user, ts_ms, f"i{self._visit}")
        truth = self.truths[order.event_id]
        fates = ("none", "in time", "twice", "early", "in grace", "too late", "foreign", "orphan")
        fate = self._rng.choices(fates, (50, 18, 6, 6, 5, 5, 5, 5))[0]
        for n, after_ms in enumerate(self._delays(fate)):
            label = Label(
                event_id=f"l{n}-{order.event_id}",
                ts_ms=ts_ms + after_ms,
                user_id=self._user(but=user) if fate == "foreign" else user,
                judged_event_id=f"gone{self._visit}" if fate == "orphan" else order.event_id,
                task="fraud",
                value=float(1 - n),
            )
            again = self._rng.random() < 0.15
            self._send("labels", label, again=float(again))
            self._note(fate, again)
            if fate in ("in time", "twice", "early", "in grace"):
                truth.tell("fraud", float(1 - n), label, in_window=fate != "in grace")

    def _delays(self, fate: str) -> list[int]:
        """When labels are dated, after their order."""
        rng = self._rng
        within = sorted(rng.sample(range(MINUTE_MS, WINDOW_MS, MINUTE_MS), 2))  # a minute apart
        return {
            "none": [],
            "in time": within[:1],
            "twice": within,
            "early": [-rng.randrange(1, 10 * MINUTE_MS)],
            "in grace": [WINDOW_MS + rng.randrange(1, GRACE_MS - MINUTE_MS)],
            "too late": [WINDOW_MS + GRACE_MS + rng.randrange(1, 5 * HOUR_MS)],
        }.get(fate, within[:1])

    def _note(self, fate: str, again: bool) -> None:
        self.orphans += (1 + again) * (fate == "orphan")
        self.sent["duplicated"] += again
        odd = {"orphan": "orphaned", "foreign": "foreign", "early": "early", "too late": "late", "in grace": "late"}
        if fate in odd:
            self.sent[odd[fate]] += 1 + again

    def _ordered(self, ident: str, user: str, ts_ms: int, item: str) -> Order:
        """The order, its row as served, and that it is honest unless somebody says otherwise."""
        order = Order(
            event_id=ident,
            ts_ms=ts_ms,
            user_id=user,
            lines=(Line(item_id=item, quantity=1, unit_price=9.0),),
            amount=9.0,
            currency="EUR",
            payment_method="card",
        )
        self._send("orders", order)
        truth = self.truths[ident] = Truth(self._row("order", ident, user, ts_ms, ()), None)
        truth.say("fraud", 0.0, ts_ms + WINDOW_MS)
        truth.waited_ms = {"fraud": ts_ms + WINDOW_MS}
        return order

    def _search(self, user: str, ts_ms: int) -> None:
        rng, items = self._rng, tuple(f"i{self._visit}-{n}" for n in range(ITEMS))
        query = f"q{self._visit}"
        row = self._row("search", f"q{self._visit}", user, ts_ms, items, query=query)
        clicked: list[tuple[str, Click]] = []
        for item in rng.sample(items, rng.choice((0, 1, 1, 2))):
            in_time = rng.random() < 0.85
            after_ms = rng.randrange(1, CLICK_MS) if in_time else rng.randrange(CLICK_MS + 1, HOUR_MS)
            click = Click(event_id=f"c-{item}", ts_ms=ts_ms + after_ms, user_id=user, item_id=item, query=query)
            self._send("clicks", click, again=0.1)
            clicked += [(item, click)] if in_time else []
        for at, item in enumerate(items if clicked else ()):
            truth = self.truths[f"{row.event_id}~{item}"] = Truth(row, at)
            truth.waited_ms = {"relevance": ts_ms + CLICK_MS}
            truth.say("relevance", 0.0, ts_ms + CLICK_MS)
            for name, click in clicked:
                if name == item:
                    truth.tell("relevance", 1.0, click)

    def _row(
        self, kind: ScoredKind, ident: str, user: str, ts_ms: int, items: tuple[str, ...], *, query: str = ""
    ) -> ScoredRow:
        """A row as served, logged within a minute; some twice, as by a worker without transactions that died."""
        own = {
            "recommendation": ("user", "context"),
            "order": ("user", "order", "context"),
            "search": ("user", "query"),
        }
        draw = self._arrays
        groups = {
            group: pack(Block(draw.normal(size=(1, 6)).astype("f4"), draw.integers(1, 2**40, (1, 2))))
            for group in own[kind]
        }
        if items:
            rows = len(items)
            groups["item"] = pack(Block(draw.normal(size=(rows, 4)).astype("f4"), draw.integers(1, 2**40, (rows, 3))))
        task = {"recommendation": "click", "order": "fraud", "search": "relevance"}[kind]
        row = ScoredRow(
            event_id=ident,
            kind=kind,
            user_id=user,
            ts_ms=ts_ms,
            topic="shop.orders",
            partition=0,
            offset=self._visit,
            model_version="m1",
            features="f1",
            groups=groups,
            items=items,
            scores={task: tuple(draw.random(max(1, len(items))).tolist())},
            entities=(f"user:{user}",),
            query=query,
        )
        self._send("scored", row, delay_ms=MINUTE_MS, again=0.01)
        return row

    def _send(
        self,
        kind: str,
        thing: ScoredRow | Event,
        *,
        delay_ms: int = 5 * SECOND_MS,
        again: float = 0.0,
        partition: int | None = None,
    ) -> None:
        """Put it on its way, some more than once."""
        user = thing.user_id if isinstance(thing, ScoredRow) else str(getattr(thing, "user_id", ""))
        value = to_msgpack(thing) if isinstance(thing, ScoredRow) else to_json(thing)
        for _ in range(1 + (self._rng.random() < again)):
            self.records.append(
                Sent(
                    thing.ts_ms + self._rng.randrange(delay_ms),
                    kind,
                    zlib.crc32(user.encode()) % PARTITIONS if partition is None else partition,
                    thing.ts_ms,
                    thing.event_id,
                    user,
                    value,
                )
            )

    def _user(self, *, but: str = "") -> str:
        while (found := f"u{self._rng.randrange(USERS)}") == but:
            pass
        return found
