"""Online Retail as a stream: record counts match the file, and cancelled lines match the right order."""

import os
from collections import Counter
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData, BadEvent
from contract.events.model import Label, Order, Product
from contract.events.reading import decode
from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings, TopicSettings
from contract.units import DAY_MS
from demo.online_retail.events import OnlineRetail, count_expected_dead_letters
from demo.replay import replay
from demo.simulator.records import SourceRecord
from devservers.embedded import PARTITIONS, EmbeddedKafka
from tests.checkout import ROOT
from tests.kafka import read_topics

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def data_folder() -> Path:
    folder = Path(os.environ.get("SHOPSTREAM_DATA", SHARED_DATA)) / "online_retail"
    if not (folder / "online_retail.parquet").exists():
        pytest.skip(f"Online Retail should be in the folder that SHOPSTREAM_DATA names. Found none at {folder}.")
    return folder


def make_row(
    number: str, code: str, quantity: int, day: int, customer: float | None = 1.0, price: float = 2.5
) -> dict[str, Any]:
    """A line of the file, at noon on a day of December 2010."""
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
    """The cancelling invoice and the cancelled order of each label."""
    labels = [event for record in records if isinstance(event := record.event, Label)]
    return [(label.event_id.partition("~")[0], label.judged_event_id) for label in labels]


def test_an_invoice_is_one_order_with_a_line_for_each_row(tmp_path: Path) -> None:
    # given
    path = write_table(
        tmp_path, make_row("1", "A", 6, 1), make_row("1", "BANK CHARGES", 2, 1, price=0.0), make_row("2", "A", 1, 2)
    )

    # when
    orders = [record for record in OnlineRetail(path).records() if record.kind == "orders"]

    # then
    first, second = (decode("orders", record.value) for record in orders)
    assert isinstance(first, Order)
    assert [(line.item_id, line.quantity, line.unit_price) for line in first.lines] == [
        ("A", 6, 2.5),
        ("BANK CHARGES", 2, 0.0),
    ]
    assert (first.event_id, first.user_id, first.amount) == ("1", "1", 15.0)
    assert (first.currency, first.payment_method, first.shipping_country) == ("GBP", "invoice", "France")
    assert second.ts_ms - first.ts_ms == DAY_MS
    assert [record.key for record in orders] == ["1", "1"]


def test_a_product_precedes_its_first_order_and_repeats_with_a_new_price_a_month_later(tmp_path: Path) -> None:
    # given
    rows = [make_row("1", "A", 6, 1), make_row("2", "A", 6, 20, price=3.0), make_row("3", "A", 6, 31, price=4.0)]
    damaged = make_row("0", "A", 6, 1, price=0.0)

    # when
    records = list(OnlineRetail(write_table(tmp_path, damaged, *rows)).records())

    # then
    events = [record.event for record in records]
    products = [(n, event.price, event.title) for n, event in enumerate(events) if isinstance(event, Product)]
    assert products == [(1, 2.5, "A OF TIN"), (4, 4.0, "A OF TIN")]


def test_a_cancelled_line_matches_the_latest_earlier_order_with_its_item_and_quantity(tmp_path: Path) -> None:
    # given orders of the customer, one of another customer, and one after the cancellation
    path = write_table(
        tmp_path,
        make_row("1", "A", 6, 1),
        make_row("2", "A", 6, 2),
        make_row("3", "A", 5, 3),
        make_row("4", "A", 9, 3, customer=2.0),
        make_row("C5", "A", -6, 4),
        make_row("6", "A", 6, 5),
    )

    # when
    actual = labels_by_order(list(OnlineRetail(path).records()))

    # then
    assert actual == [("C5", "2")]


def test_a_label_has_the_time_of_the_cancelling_invoice(tmp_path: Path) -> None:
    # given
    path = write_table(tmp_path, make_row("1", "A", 6, 1), make_row("C2", "A", -6, 4), make_row("3", "A", 1, 5))

    # when
    records = list(OnlineRetail(path).records())

    # then
    label = records[2].event
    assert [record.kind for record in records] == ["products", "orders", "labels", "orders"]
    assert isinstance(label, Label)
    assert (label.task, label.value, label.user_id) == ("cancellation", 1.0, "1")
    assert label.ts_ms - records[1].ts_ms == 3 * DAY_MS


def test_an_invoice_makes_one_label_for_each_cancelled_order(tmp_path: Path) -> None:
    # given two lines that match one order, and one that matches another
    path = write_table(
        tmp_path,
        make_row("1", "A", 6, 1),
        make_row("1", "B", 6, 1),
        make_row("2", "D", 6, 2),
        *(make_row("C3", code, -1, 3) for code in "ABD"),
    )

    # when
    actual = labels_by_order(list(OnlineRetail(path).records()))

    # then
    assert actual == [("C3", "1"), ("C3", "2")]


def test_unmatched_lines_are_counted_by_reason(tmp_path: Path) -> None:
    # given lines without a matching quantity, item, customer or clean order
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

    # when
    actual = labels_by_order(list(retail.records()))

    # then
    assert actual == []
    assert retail.cancellations.unmatched_by == {"no_order": 3, "no_customer": 1}
    assert retail.cancellations.unmatched == 4


def test_expected_dead_letters_match_what_decoding_rejects(tmp_path: Path) -> None:
    # given an invoice for each reason, one with both, and clean ones
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

    # when
    expected = count_expected_dead_letters(path)

    # then
    assert expected == {"out_of_range": 3, "missing_field": 1}
    assert count_rejected(list(OnlineRetail(path).records())) == expected


def test_a_limit_returns_the_first_invoices(tmp_path: Path) -> None:
    # given
    path = write_table(tmp_path, make_row("1", "A", 6, 1), make_row("2", "A", 6, 2), make_row("3", "A", 5, 3))

    # when
    orders = [record for record in OnlineRetail(path, limit=2).records() if record.kind == "orders"]

    # then
    assert len(orders) == 2


def test_replay_sends_each_record_to_the_topic_of_its_kind(
    tmp_path: Path, embedded_kafka: EmbeddedKafka, topic_prefix: str
) -> None:
    # given
    path = write_table(
        tmp_path, make_row("1", "A", 6, 1), make_row("2", "A", 6, 2, customer=None), make_row("C3", "A", -5, 3)
    )
    topics = TopicSettings(**{kind: f"{topic_prefix}{kind}" for kind in ("orders", "products", "labels")})  # type: ignore[arg-type]
    names = (topics.orders, topics.products, topics.labels)
    embedded_kafka.create_topics(dict.fromkeys(names, PARTITIONS))
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=embedded_kafka.bootstrap), topics=topics)

    # when
    assert replay(settings, path, speed_up=0.0, limit=None) == 0

    # then
    assert [len(read_topics(embedded_kafka.bootstrap, name)) for name in names] == [2, 1, 1]


def test_a_missing_file_raises_bad_data(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="should be a Parquet file"):
        OnlineRetail(tmp_path)


def test_the_whole_file_has_its_known_counts(data_folder: Path) -> None:
    # when
    retail = OnlineRetail(data_folder)
    records = list(retail.records())

    # then
    kinds = Counter(record.kind for record in records)
    assert len(retail.invoices) == 25_900
    assert kinds["orders"] == 22_064
    assert sum(invoice.is_cancellation for invoice in retail.invoices) == 3_836
    assert len({cancelling for cancelling, _ in labels_by_order(records)}) == 3_126
    assert count_rejected(records) == {"missing_field": 2_190, "out_of_range": 1_338}
    assert count_rejected(records) == count_expected_dead_letters(data_folder)
    assert all(earlier.ts_ms <= later.ts_ms for earlier, later in pairwise(records))


def count_rejected(records: list[SourceRecord]) -> dict[str, int]:
    """Number of records that do not decode, by reason."""
    reasons = Counter[str]()
    for record in records:
        try:
            decode(record.kind, record.value)
        except BadEvent as error:
            reasons[error.reason] += 1
    return dict(reasons)
