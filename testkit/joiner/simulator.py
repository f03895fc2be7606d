"""A simulated shop for the joiner's kill test: records in their order of arrival, and the expected examples.

The simulator decides what happens and when, so it knows the final labels of each example without asking the joiner.
Items, searches and orders belong to one visit each, so no label can belong to two examples.
"""

import random
import zlib

import numpy as np

from contract.events.model import Click, Event, Impression, Label, Line, Order
from contract.features.declaration import Block
from contract.features.packing import pack
from contract.graphs import GRAPHS
from contract.messages import ScoredKind, ScoredRow, to_json, to_msgpack
from contract.units import HOUR_MS, MINUTE_MS, SECOND_MS
from testkit.joiner.expected import (
    CLICK_MS,
    GRACE_MS,
    ITEMS_PER_LIST,
    ITEMS_SHOWN,
    KINDS,
    PARTITIONS,
    PURCHASE_MS,
    PURCHASE_WINDOW_MS,
    TAIL_MS,
    USERS,
    WINDOW_MS,
    ExpectedExample,
    TimedRecord,
    make_last_record,
)


class JoinSimulator:
    """Simulates visits, evenly spread over `hours`, until there are `events` records."""

    def __init__(self, *, events: int, hours: float, begin_ms: int, seed: int) -> None:
        self._rng, self._array_rng = random.Random(f"join {seed}"), np.random.default_rng(seed)
        self._begin_ms = begin_ms
        self._span_ms = round(hours * HOUR_MS)
        self._events = events
        self.records: list[TimedRecord] = []
        self.expected: dict[str, ExpectedExample] = {}
        self.orphans = 0  # labels of orders that never existed, or of an order in partitions of another number
        anomalies = ("early", "late", "duplicated", "foreign", "orphaned")
        self.label_counts: dict[str, int] = dict.fromkeys(anomalies, 0)
        self._visit = 0

    def run(self) -> None:
        """Simulate; records end in their order of arrival, with a final one in each partition."""
        visits = (
            self._simulate_list,
            self._simulate_list,
            self._simulate_order,
            self._simulate_order,
            self._simulate_search,
        )
        while len(self.records) < self._events:
            self._visit += 1
            ts_ms = self._begin_ms + self._rng.randrange(self._span_ms)
            self._rng.choice(visits)(self._draw_user(), ts_ms)
        self.records.sort(key=lambda record: record.arrival_ms)
        end_ms = self._begin_ms + self._span_ms + TAIL_MS
        for kind in KINDS:
            for partition in range(PARTITIONS):
                self._send(kind, make_last_record(kind, f"{kind}-{partition}", end_ms), partition=partition)

    def _simulate_list(self, user: str, ts_ms: int) -> None:
        rng, items = self._rng, tuple(f"i{self._visit}-{number}" for number in range(ITEMS_PER_LIST))
        row = self._create_row("recommendation", f"r{self._visit}", user, ts_ms, items)
        shown_ms = ts_ms + rng.randrange(SECOND_MS, 100 * MINUTE_MS)
        self._send(
            "impressions",
            Impression(
                event_id=f"s{self._visit}",
                ts_ms=shown_ms,
                user_id=user,
                items=items[:ITEMS_SHOWN],
                recommendation_id=row.event_id,
            ),
        )
        for index, item in enumerate(items[:ITEMS_SHOWN]):
            expected = self.expected[f"{row.event_id}~{item}"] = ExpectedExample(row, index)
            expected.negative_from_ms = dict.fromkeys(("click", "purchase"), shown_ms + CLICK_MS)
            for task in ("click", "purchase"):
                expected.expect(task, 0.0, shown_ms + CLICK_MS)
            self._simulate_click(expected, item, shown_ms)

    def _simulate_click(self, expected: ExpectedExample, item: str, shown_ms: int) -> None:
        """The outcome of a shown item: mostly nothing, or a click in time, in the grace period, or too late."""
        outcome = self._rng.choices(
            ("none", "in time", "in grace", "too late", "foreign", "orphan"), (55, 33, 4, 3, 3, 2)
        )[0]
        after_ms = {
            "in time": self._rng.randrange(1, CLICK_MS),
            "in grace": self._rng.randrange(CLICK_MS + 1, CLICK_MS + GRACE_MS - MINUTE_MS),
            "too late": self._rng.randrange(CLICK_MS + GRACE_MS + 1, 2 * HOUR_MS),
        }.get(outcome, MINUTE_MS)
        if outcome == "none":
            return
        click = Click(
            event_id=f"c-{item}",
            ts_ms=shown_ms + after_ms,
            user_id=self._draw_user(other_than=expected.row.user_id) if outcome == "foreign" else expected.row.user_id,
            item_id=item,
            recommendation_id=f"gone{self._visit}" if outcome == "orphan" else expected.row.event_id,
        )
        self._send("clicks", click, repeat_share=0.1)
        if outcome in ("in time", "in grace"):
            expected.add_fact("click", 1.0, click, in_window=outcome == "in time")
            self._simulate_purchase(expected, item, click.ts_ms)

    def _simulate_purchase(self, expected: ExpectedExample, item: str, clicked_ms: int) -> None:
        expected.expect("purchase", 0.0, clicked_ms + PURCHASE_MS)
        if expected.facts[0].in_window:  # else both negative labels were emitted before the click
            expected.negative_from_ms["purchase"] = clicked_ms + PURCHASE_MS
        outcome = self._rng.choices(("none", "soon", "later", "too late"), (60, 20, 15, 5))[0]
        if outcome == "none":
            return
        after_ms = {
            "soon": self._rng.randrange(1, PURCHASE_MS),
            "later": self._rng.randrange(PURCHASE_MS + 1, PURCHASE_WINDOW_MS),
            "too late": self._rng.randrange(PURCHASE_WINDOW_MS + 1, PURCHASE_WINDOW_MS + 2 * HOUR_MS),
        }[outcome]
        order = self._create_order(f"b-{item}", expected.row.user_id, clicked_ms + after_ms, item)
        if outcome != "too late":
            expected.add_fact("purchase", 1.0, order)

    def _simulate_order(self, user: str, ts_ms: int) -> None:
        """An order and its later labels."""
        order = self._create_order(f"o{self._visit}", user, ts_ms, f"i{self._visit}")
        expected = self.expected[order.event_id]
        outcomes = ("none", "in time", "twice", "early", "in grace", "too late", "foreign", "orphan")
        outcome = self._rng.choices(outcomes, (50, 18, 6, 6, 5, 5, 5, 5))[0]
        for n, after_ms in enumerate(self._draw_label_delays(outcome)):
            label = Label(
                event_id=f"l{n}-{order.event_id}",
                ts_ms=ts_ms + after_ms,
                user_id=self._draw_user(other_than=user) if outcome == "foreign" else user,
                judged_event_id=f"gone{self._visit}" if outcome == "orphan" else order.event_id,
                task="fraud",
                value=float(1 - n),
            )
            is_repeated = self._rng.random() < 0.15
            self._send("labels", label, repeat_share=float(is_repeated))
            is_elsewhere = find_partition(label.user_id) != find_partition(user)  # no row in its shard has its id
            self._count_label("orphan" if is_elsewhere else outcome, is_repeated)
            if outcome in ("in time", "twice", "early", "in grace"):
                expected.add_fact("fraud", float(1 - n), label, in_window=outcome != "in grace")

    def _draw_label_delays(self, outcome: str) -> list[int]:
        """Event times of the labels, relative to their order."""
        rng = self._rng
        within = sorted(rng.sample(range(MINUTE_MS, WINDOW_MS, MINUTE_MS), 2))  # a minute apart
        return {
            "none": [],
            "in time": within[:1],
            "twice": within,
            "early": [-rng.randrange(1, 10 * MINUTE_MS)],
            "in grace": [WINDOW_MS + rng.randrange(1, GRACE_MS - MINUTE_MS)],
            "too late": [WINDOW_MS + GRACE_MS + rng.randrange(1, 5 * HOUR_MS)],
        }.get(outcome, within[:1])

    def _count_label(self, outcome: str, is_repeated: bool) -> None:
        self.orphans += (1 + is_repeated) * (outcome == "orphan")
        self.label_counts["duplicated"] += is_repeated
        counts_by_outcome = {
            "orphan": "orphaned",
            "foreign": "foreign",
            "early": "early",
            "too late": "late",
            "in grace": "late",
        }
        if outcome in counts_by_outcome:
            self.label_counts[counts_by_outcome[outcome]] += 1 + is_repeated

    def _create_order(self, event_id: str, user: str, ts_ms: int, item: str) -> Order:
        """The order and its scored row; without labels it becomes a negative example."""
        order = Order(
            event_id=event_id,
            ts_ms=ts_ms,
            user_id=user,
            lines=(Line(item_id=item, quantity=1, unit_price=9.0),),
            amount=9.0,
            currency="EUR",
            payment_method="card",
        )
        self._send("orders", order)
        expected = self.expected[event_id] = ExpectedExample(self._create_row("order", event_id, user, ts_ms, ()), None)
        expected.expect("fraud", 0.0, ts_ms + WINDOW_MS)
        expected.negative_from_ms = {"fraud": ts_ms + WINDOW_MS}
        return order

    def _simulate_search(self, user: str, ts_ms: int) -> None:
        rng, items = self._rng, tuple(f"i{self._visit}-{n}" for n in range(ITEMS_PER_LIST))
        query = f"q{self._visit}"
        row = self._create_row("search", f"q{self._visit}", user, ts_ms, items, query=query)
        clicked: list[tuple[str, Click]] = []
        for item in rng.sample(items, rng.choice((0, 1, 1, 2))):
            in_time = rng.random() < 0.85
            after_ms = rng.randrange(1, CLICK_MS) if in_time else rng.randrange(CLICK_MS + 1, HOUR_MS)
            click = Click(event_id=f"c-{item}", ts_ms=ts_ms + after_ms, user_id=user, item_id=item, query=query)
            self._send("clicks", click, repeat_share=0.1)
            clicked += [(item, click)] if in_time else []
        for index, item in enumerate(items if clicked else ()):
            expected = self.expected[f"{row.event_id}~{item}"] = ExpectedExample(row, index)
            expected.negative_from_ms = {"relevance": ts_ms + CLICK_MS}
            expected.expect("relevance", 0.0, ts_ms + CLICK_MS)
            for name, click in clicked:
                if name == item:
                    expected.add_fact("relevance", 1.0, click)

    def _create_row(
        self, kind: ScoredKind, event_id: str, user: str, ts_ms: int, items: tuple[str, ...], *, query: str = ""
    ) -> ScoredRow:
        """A scored row, logged within a minute; some twice, as by a killed worker without transactions."""
        graph = next(graph for graph in GRAPHS.values() if kind in graph.scored_kinds)
        rng = self._array_rng
        groups = {
            group: pack(Block(rng.normal(size=(1, 6)).astype("f4"), rng.integers(1, 2**40, (1, 2))))
            for group in graph.event_groups
        }
        if items:
            rows = len(items)
            groups["item"] = pack(Block(rng.normal(size=(rows, 4)).astype("f4"), rng.integers(1, 2**40, (rows, 3))))
        row = ScoredRow(
            event_id=event_id,
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
            scores={graph.outputs[0]: tuple(rng.random(max(1, len(items))).tolist())},
            entities=(f"user:{user}",),
            query=query,
        )
        self._send("scored", row, delay_ms=MINUTE_MS, repeat_share=0.01)
        return row

    def _send(
        self,
        kind: str,
        message: ScoredRow | Event,
        *,
        delay_ms: int = 5 * SECOND_MS,
        repeat_share: float = 0.0,
        partition: int | None = None,
    ) -> None:
        """Append a record with its arrival time; a share of them twice."""
        user = message.user_id if isinstance(message, ScoredRow) else str(getattr(message, "user_id", ""))
        value = to_msgpack(message) if isinstance(message, ScoredRow) else to_json(message)
        for _ in range(1 + (self._rng.random() < repeat_share)):
            self.records.append(
                TimedRecord(
                    message.ts_ms + self._rng.randrange(delay_ms),
                    kind,
                    find_partition(user) if partition is None else partition,
                    message.ts_ms,
                    message.event_id,
                    user,
                    value,
                )
            )

    def _draw_user(self, *, other_than: str = "") -> str:
        while (user := f"u{self._rng.randrange(USERS)}") == other_than:
            pass
        return user


def find_partition(user: str) -> int:
    return zlib.crc32(user.encode()) % PARTITIONS
