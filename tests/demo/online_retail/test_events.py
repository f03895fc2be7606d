"""Online Retail as a stream: its counts are the file's own, and cancelled lines find the order that they cancel."""

import os
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, TopicPartition

from contract.errors import BadData, BadEvent
from contract.events import Label, Order, Product, decode
from contract.settings import KafkaSettings, Settings, TopicSettings
from demo.online_retail.events import OnlineRetail, count_expected_dead_letters
from demo.replay import replay
from demo.simulator.records import SourceRecord
from devservers.embedded import PARTITIONS, EmbeddedKafka
from tests.checkout import ROOT

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(os.environ.get("SHOPSTREAM_DATA", SHARED_DATA)) / "online_retail"
    if not (folder / "online_retail.parquet").exists():
        pytest.skip(f"Online Retail should be in the folder that SHOPSTREAM_DATA names. Found none at {folder}.")
    return folder


def make_row(
    number: str, code: str, quantity: int, day: int, customer: float | None = 1.0, price: float = 2.5
) -> dict[str, Any]:
    """A line of the file, at noon of a day of December 2010."""
    return {
        "InvoiceNo": number,
        "StockCode": code,
        "Description": f" {code} OF TIN ",
        "Quantity": quantity,
        "InvoiceDate": datetime(2010, 12, day, 12),
        "UnitPrice": price,
        "CustomerID": customer,
        "Country": "France",
    }


def write_table(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "online_retail.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def labels_by_order(records: list[SourceRecord]) -> list[tuple[str, str]]:
    """What each label says of which order."""
    labels = [e for h in records if isinstance(e := h.event, Label)]
    return [(label.event_id.partition("~")[0], label.judged_event_id) for label in labels]


def test_an_invoice_is_one_order_with_a_line_for_each_row(tmp_path: Path) -> None:
    # Given
    path = write_table(
        tmp_path, make_row("1", "A", 6, 1), make_row("1", "BANK CHARGES", 2, 1, price=0.0), make_row("2", "A", 1, 2)
    )

    # When
    orders = [h for h in OnlineRetail(path).records() if h.kind == "orders"]

    # Then
    first, second = (decode("orders", h.value) for h in orders)
    assert isinstance(first, Order)
    assert [(line.item_id, line.quantity, line.unit_price) for line in first.lines] == [
        ("A", 6, 2.5),
        ("BANK CHARGES", 2, 0.0),
    ]
    assert (first.event_id, first.user_id, first.amount) == ("1", "1", 15.0)
    assert (first.currency, first.payment_method, first.shipping_country) == ("GBP", "invoice", "France")
    assert second.ts_ms - first.ts_ms == 86_400_000
    assert [h.key for h in orders] == ["1", "1"]


def test_a_product_comes_before_its_first_order_and_again_when_a_new_price_has_stood_a_month(tmp_path: Path) -> None:
    # Given
    rows = [make_row("1", "A", 6, 1), make_row("2", "A", 6, 20, price=3.0), make_row("3", "A", 6, 31, price=4.0)]
    damaged = make_row("0", "A", 6, 1, price=0.0)

    # When
    records = list(OnlineRetail(write_table(tmp_path, damaged, *rows)).records())

    # Then
    products = [(at, e.price, e.title) for at, h in enumerate(records) if isinstance(e := h.event, Product)]
    assert products == [(1, 2.5, "A OF TIN"), (4, 4.0, "A OF TIN")]


def test_a_cancelled_line_judges_the_latest_earlier_order_with_that_item_and_quantity(tmp_path: Path) -> None:
    # Given orders of one customer, one of another, and one after the cancellation
    path = write_table(
        tmp_path,
        make_row("1", "A", 6, 1),
        make_row("2", "A", 6, 2),
        make_row("3", "A", 5, 3),
        make_row("4", "A", 9, 3, customer=2.0),
        make_row("C5", "A", -6, 4),
        make_row("6", "A", 6, 5),
    )

    # When
    actual = labels_by_order(list(OnlineRetail(path).records()))

    # Then
    assert actual == [("C5", "2")]


def test_a_label_arrives_when_the_cancelling_invoice_does(tmp_path: Path) -> None:
    # Given
    path = write_table(tmp_path, make_row("1", "A", 6, 1), make_row("C2", "A", -6, 4), make_row("3", "A", 1, 5))

    # When
    records = list(OnlineRetail(path).records())

    # Then
    label = records[2].event
    assert [h.kind for h in records] == ["products", "orders", "labels", "orders"]
    assert isinstance(label, Label)
    assert (label.task, label.value, label.user_id) == ("cancellation", 1.0, "1")
    assert label.ts_ms - records[1].ts_ms == 3 * 86_400_000


def test_an_invoice_says_once_of_an_order_that_it_was_cancelled(tmp_path: Path) -> None:
    # Given two lines that match one order, and one that matches another
    path = write_table(
        tmp_path,
        make_row("1", "A", 6, 1),
        make_row("1", "B", 6, 1),
        make_row("2", "D", 6, 2),
        *(make_row("C3", code, -1, 3) for code in "ABD"),
    )

    # When
    actual = labels_by_order(list(OnlineRetail(path).records()))

    # Then
    assert actual == [("C3", "1"), ("C3", "2")]


def test_lines_that_match_no_order_are_counted_by_why(tmp_path: Path) -> None:
    # Given no such quantity, no such item, no customer, and an order that itself is a dead letter
    path = write_table(
        tmp_path,
        make_row("1", "A", 6, 1),
        make_row("2", "D", 6, 1),
        make_row("2", "E", -6, 1),
        make_row("C3", "A", -7, 3),
        make_row("C3", "B", -1, 3),
        make_row("C3", "D", -1, 3),
        make_row("C4", "A", -6, 3, customer=None),
    )
    retail = OnlineRetail(path)

    # When
    actual = labels_by_order(list(retail.records()))

    # Then
    assert actual == []
    assert retail.cancellations.unmatched_by == {"no_order": 3, "no_customer": 1}
    assert retail.cancellations.unmatched == 4


def test_what_is_expected_from_the_file_is_what_decoding_says(tmp_path: Path) -> None:
    # Given an invoice for each reason, one that is wrong twice, and clean ones
    path = write_table(
        tmp_path,
        make_row("1", "A", 0, 1),
        make_row("2", "A", 1, 1, price=-1.0),
        make_row("3", "A", 1, 1, customer=None),
        make_row("4", "A", 1, 1, customer=None),
        make_row("4", "A", -2, 1, customer=None),
        make_row("5", "A", 1, 1),
        make_row("C6", "A", -1, 1, customer=None),
    )

    # When
    expected = count_expected_dead_letters(path)

    # Then
    assert expected == {"out_of_range": 3, "missing_field": 1}
    assert count_rejected(list(OnlineRetail(path).records())) == expected


def test_the_first_invoices_alone_can_be_had(tmp_path: Path) -> None:
    # Given
    path = write_table(tmp_path, make_row("1", "A", 6, 1), make_row("2", "A", 6, 2), make_row("3", "A", 5, 3))

    # When
    orders = [h for h in OnlineRetail(path, limit=2).records() if h.kind == "orders"]

    # Then
    assert len(orders) == 2


def test_replaying_sends_everything_to_the_topic_of_its_kind(
    tmp_path: Path, embedded_kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    # Given
    path = write_table(
        tmp_path, make_row("1", "A", 6, 1), make_row("2", "A", 6, 2, customer=None), make_row("C3", "A", -5, 3)
    )
    topics = TopicSettings(**{kind: f"{topic_prefix}{kind}" for kind in ("orders", "products", "labels")})  # type: ignore[arg-type]
    names = (topics.orders, topics.products, topics.labels)
    embedded_kafka.create_topics(dict.fromkeys(names, PARTITIONS))
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # When
    assert replay(settings, path, speed_up=0.0, limit=None) == 0

    # Then
    consumer = Consumer({"bootstrap.servers": embedded_kafka.bootstrap, "group.id": topic_prefix})
    ends = {
        name: sum(consumer.get_watermark_offsets(TopicPartition(name, p), timeout=10)[1] for p in range(PARTITIONS))
        for name in names
    }
    consumer.close()
    assert list(ends.values()) == [2, 1, 1]


def test_a_missing_file_is_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="should be a Parquet file"):
        OnlineRetail(tmp_path)


def test_the_whole_file_has_the_counts_that_are_known_of_it(real: Path) -> None:
    # When
    retail = OnlineRetail(real)
    records = list(retail.records())

    # Then
    kinds = Counter(h.kind for h in records)
    assert len(retail.invoices) == 25_900
    assert kinds["orders"] == 22_064
    assert sum(invoice.is_cancellation for invoice in retail.invoices) == 3_836
    assert len({cancelling for cancelling, _ in labels_by_order(records)}) == 3_126
    assert (
        count_rejected(records) == count_expected_dead_letters(real) == {"missing_field": 2_190, "out_of_range": 1_338}
    )
    assert all(earlier.ts_ms <= later.ts_ms for earlier, later in pairwise(records))


def count_rejected(records: list[SourceRecord]) -> dict[str, int]:
    """How many of them cannot be decoded, by reason."""
    reasons = Counter[str]()
    for record in records:
        try:
            decode(record.kind, record.value)
        except BadEvent as error:
            reasons[error.reason] += 1
    return dict(reasons)
