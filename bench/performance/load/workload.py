"""The load of the performance benches: a shop's records as they are on topics, and a bundle to answer them.

The network has random weights (`synthetic_network.py`); speed does not depend on them. Event times advance steadily.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer

from bench.performance.load.synthetic_network import draw_network
from bench.performance.load.synthetic_shop import ITEMS, SELLERS, USERS, SyntheticShop
from contract.events.model import Product
from contract.messages import to_json
from export.exporter import export
from export.interactions import SCHEMA
from model.checkpoint import Checkpoint, make_metadata
from testkit.environment.batch_producer import OutgoingRecord, produce_all

CATEGORIES: Final = 40
EVENTS_PER_S: Final = 15_000  # by the event times
BASKETS: Final = 20_000  # from which the bundle's neighbours are counted
SIZE_SAMPLE: Final = 1_000  # records by which the size of an event is estimated


class LoadRecord(NamedTuple):
    """A record to produce."""

    kind: str
    key: str
    value: bytes


class LoadGenerator(SyntheticShop):
    """The seeded shop with event times at a steady rate, or at the time of generation."""

    def __init__(self, seed: int, begin_ms: int | None, *, users: int = USERS) -> None:
        """`begin_ms`: time of the first event; None: each event has the current time."""
        super().__init__(seed)
        self._begin_ms, self._users = begin_ms, users
        self._first_number = 0

    def start_from(self, number: int) -> None:
        """Number the following events from here, so that no id repeats that of an earlier generator."""
        self.event_count = self._first_number = number

    def next_ms(self) -> int:
        self.event_count += 1
        if self._begin_ms is None:
            return time.time_ns() // 1_000_000
        return self._begin_ms + (self.event_count - self._first_number) * 1000 // EVENTS_PER_S

    def generate(self, clicks: int, orders: int) -> Iterator[LoadRecord]:
        """The given numbers of clicks and orders, evenly mixed."""
        total, due = clicks + orders, 0
        for _ in range(total):
            due += orders
            kind = "orders" if due >= total else "clicks"
            due -= total if kind == "orders" else 0
            user = self.rng.randrange(self._users)
            event = self.draw_order(user, lines=1, sellers=False) if kind == "orders" else self.draw_click(user)
            yield LoadRecord(kind, event.user_id, to_json(event))


def generate_products(now_ms: int) -> Iterator[LoadRecord]:
    """Product records of every item that is clicked or bought."""
    for item in range(ITEMS):
        product = Product(
            event_id=f"p{item}",
            ts_ms=now_ms,
            item_id=f"i{item}",
            title=f"Item {item} of kind {item % 97}",
            brand=f"brand {item % 50}",
            category=f"category {item % CATEGORIES}",
            price=item % 97 + 0.99,
            currency="EUR",
            available=True,
            seller_id=f"s{item % SELLERS}",
        )
        yield LoadRecord("products", product.item_id, to_json(product))


class Workload(NamedTuple):
    """A load of `events` events, a share of them clicks, for a worker of one lane."""

    name: str
    lane: str
    click_share: float
    events: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of records on its topics."""
        if not self.click_share:
            return ("orders",)
        return ("clicks", "products") if self.click_share == 1 else ("clicks", "products", "orders")

    @property
    def graphs(self) -> dict[str, str]:
        """Kind of event -> the graph that answers it."""
        return {"orders": "decide"} if self.lane == "orders" else {"clicks": "recommend"}

    def generate(self, load: LoadGenerator, events: int) -> list[LoadRecord]:
        clicks = round(events * self.click_share)
        return list(load.generate(clicks, events - clicks))

    def measure_event_bytes(self) -> float:
        """Mean size of an event on its topic, key included."""
        records = self.generate(LoadGenerator(1, time.time_ns() // 1_000_000), SIZE_SAMPLE)
        return sum(len(record.key) + len(record.value) for record in records) / SIZE_SAMPLE


def produce(bootstrap: str, topics: Mapping[str, str], records: Iterable[LoadRecord]) -> dict[str, int]:
    """Write records to the topics of their kinds; returns how many of each kind were acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4", "log_level": 0})
    counts = Counter[str]()

    def route() -> Iterator[OutgoingRecord]:
        for record in records:
            counts[record.kind] += 1
            yield OutgoingRecord(topics[record.kind], record.key, record.value)

    produce_all(producer, route())
    return dict(counts)


def make_checkpoint(seed: int, basket_seed: int) -> Checkpoint:
    """A random network with interactions from random baskets."""
    network = draw_network(seed)
    metadata = make_metadata(network, parent=None, created_ms=time.time_ns() // 1_000_000, evaluation={}, positions={})
    return Checkpoint(metadata=metadata, weights=network.state_dict(), interactions=draw_baskets(basket_seed))


def publish_bundle(bundles: Path, seed: int) -> str:
    """Export and publish the checkpoint of this seed; returns its version."""
    return export(make_checkpoint(seed, seed), bundles, {}).manifest.version


def draw_baskets(seed: int) -> bytes:
    """Users with five items each, mostly neighbours by number, as Parquet."""
    rng = np.random.default_rng(seed)
    first = (ITEMS * rng.random(BASKETS) ** 2).astype(np.int64)
    items = (first[:, None] + rng.integers(0, 30, (BASKETS, 5))) % ITEMS
    table = pa.table(
        {
            "user_id": [f"b{user}" for user in np.repeat(np.arange(BASKETS), 5)],
            "item_id": [f"i{item}" for item in items.ravel()],
            "ts_ms": np.arange(items.size) * 1_000,
        },
        SCHEMA,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
