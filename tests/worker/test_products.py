"""The products topic as it becomes a catalogue: read whole at first, and told how far that is."""

import logging
from typing import Final

import pytest

from contract.encoding import Encoder
from contract.rows import to_json
from tests.worker.shop import FEATURES, NOW_MS, product
from worker import metrics
from worker.catalogue import Catalogue
from worker.intake import Place, Record
from worker.products import Products

PLACE: Final = Place("shop.products", 0)


class Topic:
    """A follower that gives what a test lays out, one portion at each poll."""

    def __init__(self, *portions: list[Record]) -> None:
        self._portions = list(portions)

    @property
    def behind(self) -> int:
        return 1 if self._portions else 0

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        return self._portions.pop(0) if self._portions else []


def record(item: str, value: bytes | None) -> Record:
    return Record(PLACE, 0, item.encode(), value, [], NOW_MS)


def told(item: str, *, price: float = 1.0) -> Record:
    return record(item, to_json(product(item, price=price)))


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Encoder(FEATURES))


def products(catalogue: Catalogue, *portions: list[Record]) -> Products:
    return Products(follower=Topic(*portions), catalogue=catalogue)  # type: ignore[arg-type]


def test_it_is_ready_once_all_that_was_there_at_first_is_read_and_says_how_far_it_is(
    catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    reading = products(catalogue, [told("a"), told("b")], [told("c")])
    # when
    reading.follow()
    # then
    assert not reading.ready
    assert reading.progress == "The catalogue is being read: 2 items, 1 partitions to go on."
    # when
    with caplog.at_level(logging.INFO):
        reading.follow()
    # then
    assert bool(reading.ready)
    assert caplog.messages == [reading.progress] == ["The catalogue is read: 3 items."]


def test_an_item_that_is_told_twice_is_one_item_as_it_was_told_last(catalogue: Catalogue) -> None:
    products(catalogue, [told("a", price=3), told("b"), told("a", price=5)]).follow()

    assert len(catalogue) == 2
    assert catalogue.price[catalogue.find(["a"])].tolist() == [5]


def test_what_is_no_product_is_counted_and_the_others_are_taken(catalogue: Catalogue) -> None:
    counted = metrics.BAD_PRODUCTS.labels("not_json")._value.get()

    products(catalogue, [record("a", b"{"), told("b")]).follow()

    assert catalogue.names(catalogue.find(["b"])) == ["b"]
    assert metrics.BAD_PRODUCTS.labels("not_json")._value.get() == counted + 1


def test_an_item_whose_record_was_deleted_is_not_for_sale(catalogue: Catalogue) -> None:
    products(catalogue, [told("a"), record("a", None), record("never heard of", None)]).follow()

    assert catalogue.sold[catalogue.find(["a"])].tolist() == [False]
