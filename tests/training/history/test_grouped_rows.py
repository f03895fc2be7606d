"""Tables with a row for each line of an order: consecutive rows with one value of a column are one order."""

from pathlib import Path

import pytest

from contract.errors import BadConfig, BadData
from contract.events.model import Event, Order
from contract.mapping.topic_map import TopicMap
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import read_maps
from training.history import documents
from training.history.decoding import DocumentDecoder
from training.history.inputs import parse_inputs, read_documents

NOW_MS = 1_796_009_000_000
# The layout of an export of Shopify: what holds for the whole order stands in its first row only.
EXPORT = """Name,Email,Created at,Total,Currency,Lineitem quantity,Lineitem price,Lineitem sku
#1001,ann@example.com,2026-11-28 10:00:00 +0100,44.80,EUR,2,19.90,MUG-1
#1001,ann@example.com,,,,1,5.00,TEA
#1002,bob@example.com,2026-11-28 11:00:00 +0100,5.00,EUR,1,5.00,TEA
"""
MAP = {
    "export": {
        "kind": "orders",
        "fields": {
            "event_id": "Name",
            "ts_ms": {"path": '"Created at"', "unit": "iso"},
            "user_id": "Email",
            "amount": "Total",
            "currency": "Currency",
            "payment_method": {"constant": "unknown"},
            "lines": {
                "item_id": 'rows[]."Lineitem sku"',
                "quantity": 'rows[]."Lineitem quantity"',
                "unit_price": 'rows[]."Lineitem price"',
            },
        },
    }
}


def read_orders(word: str) -> list[Event]:
    maps = {table.name: TopicMap([table], IntakeSettings().folded_placeholders) for table in read_maps(MAP)}
    (file,) = parse_inputs([word], maps)
    decoder = DocumentDecoder(now_ms=NOW_MS, maps=maps)
    return [decoder.decode(file, document).event for document in read_documents(file)]


def list_lines(order: Event) -> list[tuple[str, float, float]]:
    assert isinstance(order, Order)
    return [(line.item_id, line.quantity, line.unit_price) for line in order.lines]


def test_rows_with_one_order_number_are_the_lines_of_one_order(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(EXPORT)

    first, second = read_orders(f"map.export:Name={path}")

    assert (first.event_id, list_lines(first)) == ("#1001", [("MUG-1", 2, 19.9), ("TEA", 1, 5.0)])
    assert (second.event_id, list_lines(second)) == ("#1002", [("TEA", 1, 5.0)])
    assert isinstance(first, Order)
    assert first.amount == 44.8


def test_rows_in_our_own_fields_need_no_map(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    whole = "o-1,1796008800000,u-1,30,EUR,card"
    path.write_text(
        "event_id,ts_ms,user_id,amount,currency,payment_method,item_id,quantity,unit_price\n"
        f"{whole},a,1,10\n{whole},b,2,10\n"
    )

    (order,) = read_orders(f"orders:event_id={path}")

    assert list_lines(order) == [("a", 1, 10.0), ("b", 2, 10.0)]


def list_groups(folder: Path, rows: str) -> list[list[str] | str]:
    """The values of `sku` of each group of rows with one `id`, or of a row by itself; `unclear` for what is refused."""
    path = folder / "orders.csv"
    path.write_text(f"id,sku\n{rows}")
    (file,) = parse_inputs([f"orders:id={path}"])
    return [
        "unclear"
        if not isinstance(document, dict)
        else [row["sku"] for row in document["lines"]]
        if "lines" in document
        else document["sku"]
        for document in read_documents(file)
    ]


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ("1,a\n,b\n,c\n1,d\n", [["a"], "b", "c", ["d"]]),  # rows without the value
        ("1,a\n\n1,b\n\n2,c\n", [["a", "b"], ["c"]]),  # empty lines
        ("1,a\n1,b,more\n1,c\n2,d\n", ["unclear", ["d"]]),  # an order is whole, or refused
        ("1,a\n1,b,more\n1,c,more\n1,d\n1,e\n", ["unclear"]),
        ("1,a\n2,b,more\n2,c\n", [["a"], "unclear", ["c"]]),
        ("1,a,more\n1,b\n2,c,more\n", ["unclear", ["b"], "unclear"]),
    ],
)
def test_what_stands_between_rows_of_an_order_splits_none_in_parts(
    rows: str, groups: list[list[str] | str], tmp_path: Path
) -> None:
    assert list_groups(tmp_path, rows) == groups


def test_a_column_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("id,sku\n1,a\n")

    with pytest.raises(BadData, match="should have a column named order"):
        list(read_documents(*parse_inputs([f"orders:order={path}"])))


def test_a_column_with_one_value_throughout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "GROUP_ROWS_MAX", 3)
    path = tmp_path / "orders.csv"
    path.write_text("shop,sku\n" + "acme,a\n" * 4)

    with pytest.raises(BadData, match="at most 3 consecutive rows with one value of shop"):
        list(read_documents(*parse_inputs([f"orders:shop={path}"])))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("clicks:session={folder}/rows.csv", "column of rows that are one order"),
        ("orders:={folder}/rows.csv", "column of rows that are one order"),
        ("orders:id={folder}/lines.jsonl", "should be CSV or Parquet"),
    ],
)
def test_what_cannot_be_grouped_is_told(word: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    (tmp_path / "lines.jsonl").write_text("{}\n")

    with pytest.raises(BadConfig, match=message):
        parse_inputs([word.format(folder=tmp_path)])
