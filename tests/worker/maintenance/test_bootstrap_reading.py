"""What a bootstrap reads from topics and folds from the history before it, without servers."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import pytest

from contract.errors import Unavailable
from contract.events.model import Order
from contract.mapping.event_topics import EventTopics
from contract.messages import to_json
from contract.profiles.erasures import NO_ERASURES
from contract.profiles.record import FAMILIES
from contract.profiles.store import InMemoryProfileStore
from contract.settings.servers import TopicSettings
from contract.settings.worker import FeedbackSettings
from tests.worker.events import make_order
from training.history.decoding import DocumentDecoder
from training.history.inputs import parse_inputs
from training.history.normalisation import write_history
from transport.record_reader import RecordReader
from transport.records import OffsetRange, Record, TopicPartition
from worker.maintenance.bootstrap import Bootstrap, format_history
from worker.maintenance.rebuild import RebuildRefused
from worker.ops.retry import Retry
from worker.records.lanes import LANES

START_MS: Final = 1_700_000_000_000
TOPICS: Final = TopicSettings()
ORDERS: Final = TopicPartition(TOPICS.orders, 1)


class FakeKafka:
    """A log reader and an admin of topics with two partitions each; only `ORDERS` has records, from offset `low`."""

    def __init__(self, orders: Iterable[Order] = (), *, low: int = 0, committed: int | None = None) -> None:
        self.records = [
            Record(ORDERS, low + n, order.user_id.encode(), to_json(order), [], order.ts_ms)
            for n, order in enumerate(orders)
        ]
        self.low, self.committed, self.failures = low, committed, 0
        self.absent = set[str]()

    def fetch_offset_ranges(self, topics: Iterable[str]) -> dict[TopicPartition, OffsetRange]:
        partitions = [TopicPartition(topic, n) for topic in topics if topic not in self.absent for n in range(2)]
        ranges = dict.fromkeys(partitions, OffsetRange(0, 0))
        return ranges | ({ORDERS: OffsetRange(self.low, self.low + len(self.records))} if ORDERS in ranges else {})

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        for record in self.records if ORDERS in ends else ():
            if self.failures:
                self.failures -= 1
                raise Unavailable("Kafka should return records. Found none.")
            yield [record]

    def fetch_committed(self, lane: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {ORDERS: self.committed} if lane == "orders" and self.committed is not None else {}


class HistoryStore(InMemoryProfileStore):
    """Profiles in memory, and the client of their registry."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.prefix = self, "shop:g1:"
        self.registry: dict[str, int] = {}

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[int]:
        ((command, key, *fields),) = commands
        assert (command, key) == ("HSET", "shop:g1:history")
        self.registry = dict(zip(fields[::2], fields[1::2], strict=True))
        return [len(self.registry)]


def make_orders(first: int, count: int) -> list[Order]:
    return [make_order(f"o{n}", user=f"u{n % 5}", ts_ms=START_MS + n) for n in range(first, first + count)]


def open_bootstrap(kafka: FakeKafka, folder: Path, orders: Iterable[Order], **more: Any) -> Bootstrap:
    lines = folder / "orders.jsonl"
    lines.write_bytes(b"".join(to_json(order) + b"\n" for order in orders))
    write_history(
        folder / "history", parse_inputs([f"orders={lines}"]), decoder=DocumentDecoder(now_ms=START_MS + 10**6)
    )
    return Bootstrap(
        history=folder / "history",
        feedback=FeedbackSettings(),
        reader=kafka,
        admin=kafka,
        client=None,
        prefix="shop:",
        record_reader=RecordReader(EventTopics(TOPICS)),
        retry=Retry(threading.Event(), wait_max_s=0.01),
        **more,
    )


def fold(bootstrap: Bootstrap) -> HistoryStore:
    store = HistoryStore()
    bootstrap._fold_first(cast(Any, store), NO_ERASURES)
    return store


def test_orders_on_the_topic_are_skipped_and_the_others_are_folded_by_partition(tmp_path: Path) -> None:
    orders = make_orders(0, 30)
    bootstrap = open_bootstrap(FakeKafka(orders[20:]), tmp_path, orders)
    store = fold(bootstrap)
    assert (bootstrap.result.read, bootstrap.result.folded, bootstrap.result.skipped) == (30, 20, {"orders": 10})
    assert sum(store.registry.values()) == 20
    assert len(store.registry) == 2 * len(FAMILIES)
    assert all(offsets == store.registry for offsets in store.offsets.values())
    assert any("orders 10" in line for line in format_history(bootstrap.result))


def test_ids_are_read_again_after_kafka_was_away(tmp_path: Path) -> None:
    orders = make_orders(0, 30)
    kafka = FakeKafka(orders[20:])
    kafka.failures = 2
    bootstrap = open_bootstrap(kafka, tmp_path, orders)
    fold(bootstrap)
    assert bootstrap.result.skipped == {"orders": 10}


def test_a_history_that_ends_before_a_shortened_log_is_refused(tmp_path: Path) -> None:
    orders = make_orders(0, 60)
    kafka = FakeKafka(orders[40:], low=7)
    with pytest.raises(RebuildRefused, match=r"shop\.orders/1 begin after it"):
        fold(open_bootstrap(kafka, tmp_path, orders[:30]))
    (tmp_path / "second").mkdir()
    fold(open_bootstrap(kafka, tmp_path / "second", orders[:30], accepts_gap=True))


def test_a_history_that_reaches_into_a_shortened_log_is_not(tmp_path: Path) -> None:
    orders = make_orders(0, 60)
    bootstrap = open_bootstrap(FakeKafka(orders[40:], low=7), tmp_path, orders[:45])
    fold(bootstrap)
    assert (bootstrap.result.folded, bootstrap.result.starts[ORDERS]) == (40, 7)


def test_topics_have_to_exist_since_they_number_the_partitions(tmp_path: Path) -> None:
    kafka = FakeKafka()
    kafka.absent = {TOPICS.clicks}
    with pytest.raises(RebuildRefused, match=r"Found none of shop\.clicks"):
        fold(open_bootstrap(kafka, tmp_path, make_orders(0, 3)))


@pytest.mark.parametrize(("committed", "end"), [(None, 7), (3, 7), (9, 9), (100, 12)])
def test_topics_are_folded_up_to_what_is_answered(tmp_path: Path, committed: int | None, end: int) -> None:
    kafka = FakeKafka(make_orders(0, 5), low=7, committed=committed)
    bootstrap = open_bootstrap(kafka, tmp_path, make_orders(0, 3))
    ends = dict[TopicPartition, int]()
    for name, lane in LANES.items():
        topics = [TOPICS.topic_name(kind) for kind in lane.folded_kinds]
        ends |= bootstrap._find_ends(name, kafka.fetch_offset_ranges(topics))
    assert ends[ORDERS] == end
    assert {ends[partition] for partition in ends.keys() - {ORDERS}} == {0}
