"""The load of throughput, latency and scale: a shop's records as they lie on topics, and a bundle that answers them.

The network is drawn (`synthetic_network.py`): its speed does not hang on its weights. Times of events go at a steady
pace.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Producer

from bench.performance.load.synthetic_network import draw_network
from bench.performance.load.synthetic_shop import ITEMS, SELLERS, USERS, SyntheticShop
from contract.events import Product
from contract.messages import to_json
from export.exporter import export
from export.interactions import SCHEMA
from model.checkpoint import Checkpoint, make_metadata

CATEGORIES: Final = 40
EVENTS_PER_S: Final = 15_000  # events a second, as their own times say
ORDER_SHARE: Final = 0.05  # of a mixed load
BASKETS: Final = 20_000  # which the bundle's neighbours are counted from
FLUSH_TIMEOUT_S: Final = 120.0


class LoadRecord(NamedTuple):
    """A record to be produced."""

    kind: str
    key: str
    value: bytes


class LoadGenerator(SyntheticShop):
    """The seeded shop of the other benches: its events go at a pace of their own, or happen when they are made."""

    def __init__(self, seed: int, begin_ms: int | None, *, users: int = USERS) -> None:
        """`begin_ms`: when the first event happened; None: events happen now."""
        super().__init__(seed)
        self._begin_ms, self._users = begin_ms, users
        self._first_number = 0

    def start_from(self, number: int) -> None:
        """No event has the id of one that was made before this number."""
        self.event_count = self._first_number = number

    def next_ms(self) -> int:
        self.event_count += 1
        if self._begin_ms is None:
            return time.time_ns() // 1_000_000
        return self._begin_ms + (self.event_count - self._first_number) * 1000 // EVENTS_PER_S

    def generate(self, clicks: int, orders: int) -> Iterator[LoadRecord]:
        """So many of each, evenly mixed."""
        total, due = clicks + orders, 0
        for _ in range(total):
            due += orders
            kind = "orders" if due >= total else "clicks"
            due -= total if kind == "orders" else 0
            user = self.rng.randrange(self._users)
            event = self.draw_order(user, lines=1, sellers=False) if kind == "orders" else self.draw_click(user)
            yield LoadRecord(kind, event.user_id, to_json(event))


def generate_products(now_ms: int) -> Iterator[LoadRecord]:
    """Every item that is clicked or bought."""
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


def produce(bootstrap: str, topics: Mapping[str, str], records: Iterable[LoadRecord]) -> dict[str, int]:
    """Write records to the topics of their kinds and return how many of each kind lie there, acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4", "log_level": 0})
    sent: dict[str, int] = defaultdict(int)
    for kind, key, value in records:
        sent[kind] += 1
        while True:
            try:
                producer.produce(topics[kind], value, key)
                break
            except BufferError:
                producer.poll(0.1)
    if waiting := producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"Kafka should take every record. Found {waiting} waiting.")
    return dict(sent)


def publish_bundle(bundles: Path, seed: int) -> str:
    """A drawn network with neighbours from drawn baskets, published as any other; its version."""
    network = draw_network(seed)
    about = make_metadata(network, parent=None, created_ms=time.time_ns() // 1_000_000, evaluation={}, positions={})
    checkpoint = Checkpoint(metadata=about, weights=network.state_dict(), interactions=draw_baskets(seed))
    return export(checkpoint, bundles, {}).manifest.version


def draw_baskets(seed: int) -> bytes:
    """Users who took some items each, neighbours by number more often than others, as Parquet."""
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
