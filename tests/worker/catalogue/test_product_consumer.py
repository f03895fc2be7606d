"""The products topic becomes the catalogue: read whole at start, with its progress logged."""

import logging
from typing import Final

import msgspec
import pytest

from contract.events.reading import READERS
from contract.features.encoder import Encoder
from contract.mapping.event_topics import EventTopics
from contract.messages import to_json
from contract.settings.servers import TopicSettings
from testkit.metrics import read_metric
from tests.worker.events import FEATURES, NOW_MS, make_product
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.ops import metrics

PARTITION: Final = TopicPartition("shop.products", 0)


class FakeProductTailer:
    """A tailer that returns the next of the given lists of records at each poll."""

    def __init__(self, *polls: list[Record], restarts_at: int | None = None) -> None:
        """`restarts_at`: the number of the poll at which the topic is a new one."""
        self._polls, self._count, self._restarts_at = list(polls), 0, restarts_at

    @property
    def partitions_behind(self) -> int:
        return 1 if self._polls else 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        self._count += 1
        return self._polls.pop(0) if self._polls else []

    def take_restarted(self) -> set[str]:
        return {PARTITION.topic} if self._count == self._restarts_at else set()


def make_record(item: str, value: bytes | None) -> Record:
    return Record(PARTITION, 0, item.encode(), value, [], NOW_MS)


def make_product_record(item: str, *, price: float = 1.0) -> Record:
    return make_record(item, to_json(make_product(item, price=price)))


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Encoder(FEATURES))


def make_consumer(catalogue: Catalogue, *polls: list[Record]) -> ProductConsumer:
    return ProductConsumer(tailer=FakeProductTailer(*polls), catalogue=catalogue)  # type: ignore[arg-type]


def test_the_consumer_is_ready_at_the_initial_end_and_reports_progress(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    consumer = make_consumer(
        catalogue, [make_product_record("a"), make_product_record("b")], [make_product_record("c")]
    )
    # when
    consumer.poll()
    # then
    assert not consumer.is_ready
    assert consumer.progress == "Catalogue loading: 2 items, 1 partitions not read to their ends."
    # when
    with caplog.at_level(logging.INFO):
        consumer.poll()
    # then
    assert bool(consumer.is_ready)  # bool: mypy narrowed it to False above
    assert caplog.messages == [consumer.progress] == ["Catalogue loaded: 3 items."]


def test_two_records_of_an_item_make_one_item(catalogue: Catalogue) -> None:
    make_consumer(
        catalogue, [make_product_record("a", price=3), make_product_record("b"), make_product_record("a", price=5)]
    ).poll()

    assert len(catalogue) == 2
    assert catalogue.price[catalogue.find(["a"])].tolist() == [5]


def test_invalid_products_are_counted_and_skipped(catalogue: Catalogue) -> None:
    rejected = read_metric(metrics.BAD_PRODUCTS, "not_json")

    make_consumer(catalogue, [make_record("a", b"{"), make_product_record("b")]).poll()

    assert catalogue.item_ids(catalogue.find(["b"])) == ["b"]
    assert read_metric(metrics.BAD_PRODUCTS, "not_json") == rejected + 1


def test_a_tombstone_makes_an_item_unavailable(catalogue: Catalogue) -> None:
    make_consumer(catalogue, [make_product_record("a"), make_record("a", None), make_record("unknown", None)]).poll()

    assert catalogue.in_stock[catalogue.find(["a"])].tolist() == [False]


def test_items_that_a_recreated_topic_lacks_become_unavailable(catalogue: Catalogue) -> None:
    # given
    old, new = (
        [make_product_record("a"), make_product_record("b")],
        [make_product_record("b"), make_product_record("c")],
    )
    tailer = FakeProductTailer(old, new[:1], new[1:], restarts_at=2)
    consumer = ProductConsumer(tailer=tailer, catalogue=catalogue)  # type: ignore[arg-type]
    consumer.poll()
    # when the new topic is read half
    consumer.poll()
    # then nothing has left the catalogue
    assert catalogue.is_available("a")
    # when it is read
    consumer.poll()
    # then
    assert [catalogue.is_available(item) for item in ("a", "b", "c")] == [False, True, True]


@pytest.mark.parametrize(
    "refused",
    [
        b'{"item_id": "a", "price": "cheap"}',
        b'{"item_id": "a"}',
        b'{"item_id": "a", "title": []}',
        b"no product",
        b"null",
        b"0",
        b'"sold out"',
        b'[{"item_id": "a", "stock": 0}]',
        b'{"item_id": "", "stock": 0}',
        b'{"item_id": " ", "stock": 0}',
        b'{"item_id": "null", "stock": 0}',
        b'{"item_id": {}, "stock": 0}',
    ],
)
def test_an_item_whose_newest_record_is_refused_is_not_recommended(catalogue: Catalogue, refused: bytes) -> None:
    # given
    consumer = make_consumer(
        catalogue,
        [make_product_record("a"), make_product_record("b"), make_record("a", refused)],
        [make_product_record("a")],
    )
    # when
    consumer.poll()
    # then
    assert [catalogue.is_available(item) for item in ("a", "b")] == [False, True]
    # when a record of it can be read again
    consumer.poll()
    # then
    assert catalogue.is_available("a")


def test_an_item_with_less_than_no_stock_is_sold_out(catalogue: Catalogue) -> None:
    product = msgspec.to_builtins(make_product("a"))
    make_consumer(
        catalogue, [make_record("a", msgspec.json.encode({**product, "stock": stock})) for stock in (5, -2)]
    ).poll()

    assert not catalogue.is_available("a")


@pytest.mark.parametrize(
    "refused", [b'{"sku": "a", "price": "cheap"}', b'{"sku": "a", "pr', b"null", b"[1]", b'{"sku": ""}']
)
def test_a_mapped_record_that_is_refused_suspends_the_item_of_its_map_or_of_its_key(
    catalogue: Catalogue, refused: bytes
) -> None:
    # given
    fields = {name: name for name in ("event_id", "ts_ms", "title", "price", "currency", "available")}
    stock = {"topics": PARTITION.topic, "kind": "products", "fields": {**fields, "item_id": "sku"}}
    topics = EventTopics(TopicSettings(), {"stock": stock})
    whole = {**msgspec.to_builtins(make_product("a")), "sku": "a"}
    consumer = ProductConsumer(
        tailer=FakeProductTailer([make_record("a", to_json(whole))], [make_record("a", refused)]),  # type: ignore[arg-type]
        catalogue=catalogue,
        record_reader=RecordReader(topics, READERS),
    )
    consumer.poll()
    assert catalogue.is_available("a")
    # when
    consumer.poll()
    # then
    assert not catalogue.is_available("a")
