"""The products topic as it becomes a catalogue: read whole at first, and told how far that is."""

import logging
from typing import Final

import pytest

from contract.features.encoder import Encoder
from contract.messages import to_json
from tests.worker.events import FEATURES, NOW_MS, make_product
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.product_consumer import ProductConsumer
from worker.ops import metrics

PARTITION: Final = TopicPartition("shop.products", 0)


class FakeProductTailer:
    """A follower that gives what a test lays out, one portion at each poll."""

    def __init__(self, *portions: list[Record]) -> None:
        self._portions = list(portions)

    @property
    def partitions_behind(self) -> int:
        return 1 if self._portions else 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        return self._portions.pop(0) if self._portions else []


def make_record(item: str, value: bytes | None) -> Record:
    return Record(PARTITION, 0, item.encode(), value, [], NOW_MS)


def make_product_record(item: str, *, price: float = 1.0) -> Record:
    return make_record(item, to_json(make_product(item, price=price)))


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Encoder(FEATURES))


def make_products(catalogue: Catalogue, *portions: list[Record]) -> ProductConsumer:
    return ProductConsumer(tailer=FakeProductTailer(*portions), catalogue=catalogue)  # type: ignore[arg-type]


def test_it_is_ready_once_all_that_was_there_at_first_is_read_and_says_how_far_it_is(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    reading = make_products(catalogue, [make_product_record("a"), make_product_record("b")], [make_product_record("c")])
    # when
    reading.poll()
    # then
    assert not reading.is_ready
    assert reading.progress == "The catalogue is being read: 2 items, 1 partitions to go on."
    # when
    with caplog.at_level(logging.INFO):
        reading.poll()
    # then
    assert bool(reading.is_ready)
    assert caplog.messages == [reading.progress] == ["The catalogue is read: 3 items."]


def test_an_item_that_is_told_twice_is_one_item_as_it_was_told_last(catalogue: Catalogue) -> None:
    make_products(
        catalogue, [make_product_record("a", price=3), make_product_record("b"), make_product_record("a", price=5)]
    ).poll()

    assert len(catalogue) == 2
    assert catalogue.price[catalogue.find(["a"])].tolist() == [5]


def test_what_is_no_product_is_counted_and_the_others_are_taken(catalogue: Catalogue) -> None:
    counted = metrics.BAD_PRODUCTS.labels("not_json")._value.get()

    make_products(catalogue, [make_record("a", b"{"), make_product_record("b")]).poll()

    assert catalogue.item_ids(catalogue.find(["b"])) == ["b"]
    assert metrics.BAD_PRODUCTS.labels("not_json")._value.get() == counted + 1


def test_an_item_whose_record_was_deleted_is_not_for_sale(catalogue: Catalogue) -> None:
    make_products(
        catalogue, [make_product_record("a"), make_record("a", None), make_record("never heard of", None)]
    ).poll()

    assert catalogue.in_stock[catalogue.find(["a"])].tolist() == [False]
