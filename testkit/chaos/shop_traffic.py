"""The traffic of a chaos run: both lanes' events, labels of orders, erasures of users; remembers what Kafka has taken.

Event time is the machine's clock less half a day, so that it can run ahead at the end, when every window has to pass.
"""

import json
import math
import random
import time
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from typing import Final

from contract.events.model import Erasure, Label, Product
from contract.messages import to_json
from contract.units import HOUR_MS
from testkit.environment.kafka_log import RecordPosition
from testkit.environment.run_environment import RunEnvironment
from testkit.environment.steady_producer import SteadyProducer
from testkit.traffic.event_generator import USERS, Traffic, TrafficRecord
from testkit.traffic.producer import AcknowledgedRecord, TrafficProducer

BEHIND_MS: Final = 12 * HOUR_MS
FRESH_MS: Final = 20_000
LABEL_SHARE: Final = 0.3
CORRECTED_SHARE: Final = 0.1  # of the labels; a second one says the opposite
LABEL_DELAYS_S: Final = (0.0, 0.2, 1.0, 4.0)
FLUSH_TIMEOUT_S: Final = 60.0
PRODUCTS: Final = 300
LANES: Final = ("orders", "browsing")


class EventClock:
    """Event time in milliseconds; `step` moves it."""

    def __init__(self) -> None:
        self.offset_ms = -BEHIND_MS
        self._latest_ms: list[tuple[int, int]] = []  # wall time, and the latest event time until then

    def now_ms(self) -> int:
        """The present event time."""
        wall_ms = time.time_ns() // 1_000_000
        now_ms = wall_ms + self.offset_ms
        if not self._latest_ms or now_ms > self._latest_ms[-1][1]:
            self._latest_ms.append((wall_ms, now_ms))
        return now_ms

    def step(self, ms: int) -> None:
        """Move event time, as a wrong clock of the senders does."""
        self.offset_ms += ms

    def latest_ms_until(self, wall_ms: int) -> int:
        """The latest event time that was sent until a moment."""
        count = bisect_right(self._latest_ms, (wall_ms, math.inf))
        return self._latest_ms[count - 1][1] if count else 0


@dataclass(frozen=True, slots=True)
class DueLabel:
    """A label that is sent at `due_s` of the monotonic clock."""

    due_s: float
    order_id: str
    user_id: str
    value: int


class ShopTraffic:
    """Sends events at a rate; a caller calls `tick` often."""

    def __init__(self, *, environment: RunEnvironment, seed: int, events_per_s: float) -> None:
        self.clock = EventClock()
        self.events_per_s = events_per_s
        self.rng = random.Random(f"shop traffic {seed}")
        self.producers = {
            lane: TrafficProducer(
                bootstrap=environment.kafka.bootstrap,
                topics=environment.topics,
                traffic=Traffic(lane=lane, seed=seed, now_ms=self.clock.now_ms),
                total=0,
                stamps_event_time=True,
            )
            for lane in LANES
        }
        self.labels: list[Label] = []  # acknowledged
        self.erasures: dict[str, Erasure] = {}  # acknowledged, by user id
        self._topics = environment.topics
        self._due_labels: list[DueLabel] = []
        self._label_count = 0
        self._seen_orders = 0
        self._known_orders: set[str] = set()
        self._debt = 0.0
        self._last_s = time.monotonic()
        self._producer = SteadyProducer(
            bootstrap=environment.kafka.bootstrap,
            settings={"topic.metadata.refresh.interval.ms": 2_000},  # added partitions are written to soon
        )

    @property
    def acknowledged(self) -> list[AcknowledgedRecord]:
        """Every record of events that Kafka has taken."""
        return [sent for producer in self.producers.values() for sent in producer.acknowledged]

    def fill_catalogue(self) -> None:
        """Send the products that users click and buy, so that there are lists."""
        for number in range(PRODUCTS):
            product = Product(
                event_id=f"p{number}",
                ts_ms=self.clock.now_ms(),
                item_id=f"i{number}",
                title=f"item {number}",
                price=9.99,
                currency="EUR",
                available=True,
            )
            self._produce("products", product.item_id, to_json(product), None)
        self.flush()

    def pause(self) -> None:
        """Owe nothing for the time until the next tick."""
        self._last_s = time.monotonic()
        self._debt = 0.0

    def tick(self) -> None:
        """Send what is due since the last tick."""
        now_s = time.monotonic()
        self._debt = min(self._debt + (now_s - self._last_s) * self.events_per_s, 4 * self.events_per_s)
        self._last_s = now_s
        for lane in self.rng.choices(LANES, weights=(1, 2), k=int(self._debt)):
            self.producers[lane].send(1)
        self._debt -= int(self._debt)
        for producer in self.producers.values():
            producer.poll()
        self._plan_labels(now_s)
        self._send_labels(now_s)
        self._producer.poll()

    def erase(self, count: int) -> list[str]:
        """Request the erasure of all events until now of some users; returns the users."""
        candidates = [f"u{number}" for number in range(USERS) if f"u{number}" not in self.erasures]
        users = self.rng.sample(candidates, count)
        for user in users:
            erasure = Erasure(event_id=f"e-{user}", ts_ms=self.clock.now_ms(), user_id=user)
            self.erasures[user] = erasure
            self._produce("erasures", user, to_json(erasure), None)
        return users

    def send_records(self, lane: str, records: list[TrafficRecord]) -> None:
        """Send these records."""
        for record in records:
            self.producers[lane].produce(record)

    def resend(self, lane: str, count: int) -> None:
        """Send some of the last events again, as a producer that retries does."""
        traffic = self.producers[lane].traffic
        self.send_records(lane, traffic.rng.choices(traffic.recent[-20:], k=count))

    def flush(self) -> None:
        """Send the labels that are due later; return when Kafka has taken everything, or raise RuntimeError."""
        for producer in self.producers.values():
            producer.flush()
        self._plan_labels(time.monotonic())
        self._send_labels(float("inf"))
        waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        if waiting or self._producer.errors:
            raise RuntimeError(
                f"Kafka should take every record. Found {waiting} waiting, and {self._producer.errors[:3]}."
            )

    def _plan_labels(self, now_s: float) -> None:
        """Plan labels for new orders that are dated now."""
        orders = self.producers["orders"].acknowledged
        for record, _ in orders[self._seen_orders :]:
            if record.kind != "orders" or record.reason is not None or record.event_id in self._known_orders:
                continue
            self._known_orders.add(record.event_id)  # an order that is sent again gets no labels of its own
            if self.rng.random() > LABEL_SHARE:
                continue
            order = json.loads(record.value or b"")
            if abs(order["ts_ms"] - self.clock.now_ms()) < FRESH_MS:
                value, due_s = self.rng.randrange(2), now_s + self.rng.choice(LABEL_DELAYS_S)
                self._due_labels.append(DueLabel(due_s, record.event_id, record.key, value))
                if self.rng.random() < CORRECTED_SHARE:
                    self._due_labels.append(DueLabel(due_s + 1, record.event_id, record.key, 1 - value))
        self._seen_orders = len(orders)

    def _send_labels(self, now_s: float) -> None:
        due = [label for label in self._due_labels if label.due_s <= now_s]
        self._due_labels = [label for label in self._due_labels if label.due_s > now_s]
        for planned in sorted(due, key=lambda label: label.due_s):
            self._label_count += 1
            label = Label(
                event_id=f"label-{self._label_count}",
                ts_ms=self.clock.now_ms(),
                user_id=planned.user_id,
                judged_event_id=planned.order_id,
                task="fraud",
                value=planned.value,
            )
            self._produce("labels", label.user_id, to_json(label), label)

    def _produce(self, kind: str, key: str, value: bytes, label: Label | None) -> None:
        self._producer.produce(
            self._topics.topic_name(kind),
            value,
            key,
            timestamp_ms=self.clock.now_ms(),
            on_taken=partial(self._on_taken, label),
        )

    def _on_taken(self, label: Label | None, _: RecordPosition) -> None:
        if label is not None:
            self.labels.append(label)
