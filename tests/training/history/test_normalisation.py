"""A shop's files become one sorted history, with a report of what was found in them."""

import csv
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadConfig, BadData
from contract.events.model import Order
from contract.history.format import MANIFEST, read_events, read_manifest
from contract.mapping.topic_map import TopicMap
from contract.settings.intake import IntakeSettings
from contract.settings.mapping import read_maps
from training.history.decoding import DocumentDecoder
from training.history.inputs import InputFile, parse_inputs
from training.history.normalisation import Normalisation, write_history
from training.history.report import HistoryReport, format_report

START_MS = 1_700_000_000_000
NOW_MS = START_MS + 10**9


def make_fields(kind: str, event_id: str, ts_ms: int, **more: Any) -> dict[str, Any]:
    user = {"event_id": event_id, "ts_ms": ts_ms, "user_id": "u1"}
    lines = [{"item_id": "i1", "quantity": 1, "unit_price": 5.0}]
    product = {"item_id": "i1", "title": "tea", "price": 5.0, "currency": "EUR", "available": True}
    fields: dict[str, dict[str, Any]] = {
        "clicks": {**user, "item_id": "i1"},
        "orders": {**user, "lines": lines, "amount": 5.0, "currency": "EUR", "payment_method": "card"},
        "labels": {**user, "judged_event_id": "o1", "task": "fraud", "value": 1},
        "products": {"event_id": event_id, "ts_ms": ts_ms, **product},
        "impressions": {**user, "items": ["i1"]},
    }
    return {**fields[kind], **more}


def write_lines(path: Path, *events: tuple[str, dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps({"kind": kind, "event": event}) + "\n" for kind, event in events))
    return path


def write(tmp_path: Path, *words: str | Path, until_ms: int | None = None) -> HistoryReport:
    folder = tmp_path / "history"
    return write_history(
        folder, parse_inputs([str(w) for w in words]), decoder=DocumentDecoder(now_ms=NOW_MS), until_ms=until_ms
    )[1]


def read_ids(tmp_path: Path) -> list[str]:
    return [historic.event.event_id for historic in read_events(tmp_path / "history")]


def test_events_of_several_files_are_sorted_by_time_and_those_of_one_time_by_kind(tmp_path: Path) -> None:
    clicks = write_lines(tmp_path / "a.jsonl", ("clicks", make_fields("clicks", "c2", START_MS + 2)))
    others = write_lines(
        tmp_path / "b.jsonl",
        ("labels", make_fields("labels", "l1", START_MS + 2)),
        ("orders", make_fields("orders", "o1", START_MS + 1)),
        ("products", make_fields("products", "p1", START_MS + 2)),
        ("clicks", make_fields("clicks", "c3", START_MS + 2)),
    )
    report = write(tmp_path, clicks, others)
    assert read_ids(tmp_path) == ["o1", "p1", "c2", "c3", "l1"]
    assert (report.first_ms, report.last_ms) == (START_MS + 1, START_MS + 2)
    assert report.out_of_order == {"orders": 1}
    assert report.late_ms == 1


def test_a_history_larger_than_memory_is_sorted_through_runs_on_disk(tmp_path: Path, seed: int) -> None:
    times = [START_MS + random.Random(seed).randrange(500) for _ in range(1_000)]
    events = [("clicks", make_fields("clicks", f"c{n}", ms)) for n, ms in enumerate(times)]
    files = parse_inputs([str(write_lines(tmp_path / "a.jsonl", *events))])
    scratch, folder = tmp_path / "scratch", tmp_path / "history"
    scratch.mkdir()
    folder.mkdir()
    # given room for few events in memory, and few in a part
    normalisation = Normalisation(
        files=files, scratch=scratch, decoder=DocumentDecoder(now_ms=NOW_MS), run_bytes=20_000, part_events=300
    )
    manifest = normalisation.write(folder)
    # then
    assert len(list(scratch.glob("run-*"))) > 5
    assert len(manifest.parts) == 4
    order = sorted(range(len(times)), key=lambda n: (times[n], n))
    assert [historic.event.event_id for historic in read_events(folder)] == [f"c{n}" for n in order]


def test_rows_of_csv_and_parquet_are_events_of_the_kind_that_is_named(tmp_path: Path) -> None:
    with (tmp_path / "orders.csv").open("w", newline="") as file:
        fields = make_fields("orders", "o1", START_MS, ip="", device_id="d1")
        rows = csv.DictWriter(file, list(fields))
        rows.writeheader()
        rows.writerow({**fields, "lines": json.dumps(fields["lines"])})
    time = datetime.fromtimestamp(START_MS / 1000, UTC)
    clicks = [{**make_fields("clicks", "c1", 0), "ts_ms": time, "rank": None}]
    pq.write_table(pa.Table.from_pylist(clicks), tmp_path / "clicks.parquet")
    write(tmp_path, f"orders={tmp_path / 'orders.csv'}", f"clicks={tmp_path / 'clicks.parquet'}")
    clicked, ordered = read_events(tmp_path / "history")
    assert clicked.event.ts_ms == START_MS
    assert isinstance(ordered.event, Order)
    assert (ordered.event.lines[0].unit_price, ordered.event.device_id, ordered.event.ip) == (5.0, "d1", None)


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    (tmp_path / "days" / "1").mkdir(parents=True)
    for n in range(3):
        write_lines(tmp_path / "days" / "1" / f"{n}.jsonl", ("clicks", make_fields("clicks", f"c{n}", START_MS - n)))
    write(tmp_path, tmp_path / "days")
    assert read_ids(tmp_path) == ["c2", "c1", "c0"]


SHOP_MAP: dict[str, Any] = {
    "topics": "acme",
    "kind": {"path": "kind", "table": {"order.placed": "orders", "page.viewed": "clicks"}},
    "fields": {
        "event_id": "id",
        "ts_ms": "at",
        "user_id": "customer.id",
        "amount": "total",
        "currency": {"constant": "EUR"},
        "payment_method": "gateway",
        "lines": {"item_id": "items[].sku", "quantity": "items[].n", "unit_price": "items[].price"},
        "item_id": "sku",
        "ip": "ip",
    },
}


def open_decoder() -> DocumentDecoder:
    return DocumentDecoder(
        now_ms=NOW_MS, maps={table.name: TopicMap([table]) for table in read_maps({"shop": SHOP_MAP})}
    )


def test_records_of_a_shops_own_form_are_read_by_its_map_as_workers_read_them(tmp_path: Path) -> None:
    # given orders and clicks of one envelope, one order with an address that is none, and a type that no table has
    line = {"sku": "A", "n": 2, "price": "9.95"}
    order = {"kind": "order.placed", "customer": {"id": 7}, "total": 19.9, "gateway": "cc", "items": [line]}
    path = tmp_path / "shop.jsonl"
    records = [
        {**order, "id": "o1", "at": "2023-11-14T23:13:20+01:00"},
        {"kind": "page.viewed", "id": "c1", "at": "2023-11-14T22:13:19Z", "customer": {"id": 7}, "sku": "A"},
        {**order, "id": "o2", "at": "2023-11-14T22:13:22Z", "ip": "nowhere"},
        {"kind": "customer.created", "id": "x"},
        {**order, "id": "o3", "at": "soon"},
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    decoder = open_decoder()
    # when
    _, report = write_history(tmp_path / "history", parse_inputs([f"map.shop={path}"], ["shop"]), decoder=decoder)
    # then
    events = list(read_events(tmp_path / "history"))
    assert [(kind, event.event_id, event.ts_ms) for kind, event in events] == [
        ("clicks", "c1", START_MS - 1000),
        ("orders", "o1", START_MS),
        ("orders", "o2", START_MS + 2000),
    ]
    assert (
        events[1].event
        == DocumentDecoder(now_ms=NOW_MS)
        .decode(
            InputFile(path, "orders"),
            make_fields(
                "orders",
                "o1",
                START_MS,
                user_id="7",
                amount=19.9,
                payment_method="cc",
                lines=[{"item_id": "A", "quantity": 2, "unit_price": 9.95}],
            ),
        )
        .event
    )
    assert report.skipped["map.shop"].examples[0].place == "shop.jsonl:4"
    assert {kind: list(reasons) for kind, reasons in report.refused.items()} == {"map.shop": ["wrong_type"]}
    assert report.ignored == {"orders.ip": 1}
    lines = "\n".join(format_report(report))
    assert "map.shop does not read them" in lines
    assert "orders.ip" in lines


def test_times_in_another_unit_and_currencies_without_a_rate_are_told(tmp_path: Path) -> None:
    orders = [("orders", make_fields("orders", f"o{n}", START_MS // 1000 + n, currency="USD")) for n in range(3)]
    path = write_lines(tmp_path / "a.jsonl", *orders)
    decoder = DocumentDecoder(now_ms=NOW_MS, intake=IntakeSettings(rates={"EUR": 1.0}))
    _, report = write_history(tmp_path / "history", parse_inputs([str(path)], []), decoder=decoder)
    assert report.doubtful == {"orders.ts_ms s": 3, "orders.currency no_rate": 3}
    lines = "\n".join(format_report(report))
    assert "orders.ts_ms: looks like `s`" in lines
    assert "`intake.rates` has no rate" in lines


@pytest.mark.parametrize(
    ("rates", "doubtful"), [({}, {"orders.currency no_rate": 2}), ({"EUR": 1.0, "JPY": 0.006}, {})]
)
def test_a_second_currency_without_any_rate_is_told(
    rates: dict[str, float], doubtful: dict[str, int], tmp_path: Path
) -> None:
    orders = [
        ("orders", make_fields("orders", f"o{n}", START_MS + n, currency=currency))
        for n, currency in enumerate(["EUR", "JPY", "EUR", "JPY"])
    ]
    path = write_lines(tmp_path / "a.jsonl", *orders)
    decoder = DocumentDecoder(now_ms=NOW_MS, intake=IntakeSettings(rates=rates))
    _, report = write_history(tmp_path / "history", parse_inputs([str(path)], []), decoder=decoder)
    assert report.doubtful == doubtful


def test_a_map_that_the_settings_lack_is_a_wrong_argument(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl")
    with pytest.raises(BadConfig, match="should name a map of the settings: shop"):
        parse_inputs([f"map.shpo={path}"], ["shop"])


def test_a_history_is_read_back_as_it_was_read_whatever_the_settings_took_as_absent(tmp_path: Path) -> None:
    intake = IntakeSettings(placeholders=("none",), private_networks=(), times={"orders": "s"})
    fields = make_fields("orders", "o1", START_MS // 1000, user_id="0", ip="10.0.0.7")
    guest = make_fields("orders", "o2", START_MS // 1000, user_id="none")
    path = write_lines(tmp_path / "a.jsonl", ("orders", fields), ("orders", guest))
    decoder = DocumentDecoder(now_ms=NOW_MS, intake=intake)
    write_history(tmp_path / "history", parse_inputs([str(path)]), decoder=decoder)
    orders = [historic.event for historic in read_events(tmp_path / "history")]
    read = [(order.user_id, order.ts_ms, order.ip) for order in orders if isinstance(order, Order)]
    assert read == [("0", START_MS, "10.0.0.7"), ("", START_MS, None)]


def test_refused_records_are_counted_by_reason_with_the_place_of_the_first_ones(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        ("clicks", make_fields("clicks", "c1", START_MS)),
        ("clicks", make_fields("clicks", "", START_MS)),
        ("clicks", make_fields("clicks", "c3", NOW_MS + 10**7)),
        ("visits", {}),
    )
    with path.open("a") as file:
        file.write("no JSON\n\n")
    report = write(tmp_path, path)
    counts = {reason: finding.records for reason, finding in report.refused["unknown"].items()}
    assert counts == {"placeholder_id": 1, "bad_time": 1, "wrong_type": 1, "not_json": 1}
    assert report.refused["unknown"]["placeholder_id"].examples[0].place == "a.jsonl:2"
    assert (report.records, report.events, report.count_refused()) == (6, 1, 4)
    assert any("a.jsonl:3" in line for line in format_report(report))


def test_a_repeated_event_is_written_once_but_a_product_once_a_version(tmp_path: Path) -> None:
    first = write_lines(
        tmp_path / "a.jsonl",
        ("clicks", make_fields("clicks", "x", START_MS + 1)),
        ("products", make_fields("products", "x", START_MS)),
        ("products", make_fields("products", "x", START_MS + 1)),
    )
    second = write_lines(tmp_path / "b.jsonl", ("clicks", make_fields("clicks", "x", START_MS)))
    report = write(tmp_path, first, second)
    assert report.duplicates == {"clicks": 1}
    assert report.kinds == {"clicks": 1, "products": 2}


def test_other_content_under_the_id_of_an_earlier_record_is_a_conflict(tmp_path: Path) -> None:
    # given a table with a row for each line of an order, one row twice, and an event that was sent again later
    first = [{"item_id": "i1", "quantity": 1, "unit_price": 5.0}]
    second = [{"item_id": "i2", "quantity": 1, "unit_price": 4.0}]
    attributes = {"colour": "red", "size": 4}
    path = write_lines(
        tmp_path / "a.jsonl",
        ("orders", make_fields("orders", "o1", START_MS + 1, lines=first, amount=9.0)),
        ("orders", make_fields("orders", "o1", START_MS, lines=second, amount=9.0)),
        ("orders", make_fields("orders", "o1", START_MS, lines=first, amount=9.0)),
        ("products", make_fields("products", "p1", START_MS)),
        ("products", make_fields("products", "p1", START_MS, price=6.0, title="other tea")),
        ("clicks", make_fields("clicks", "o1", START_MS, attributes=attributes)),
        ("clicks", make_fields("clicks", "o1", START_MS + 9, attributes=dict(reversed(attributes.items())))),
    )
    report = write(tmp_path, path)
    # then the first record stays, though it is not the earliest
    assert report.duplicates == {"orders": 1, "clicks": 1}
    assert report.kinds == {"orders": 1, "products": 1, "clicks": 1}
    orders = [event for _, event in read_events(tmp_path / "history") if isinstance(event, Order)]
    assert [order.lines[0].item_id for order in orders] == ["i1"]
    assert report.conflicts.records == 2
    assert [(example.place, example.detail) for example in report.conflicts.examples] == [
        ("a.jsonl:2", "orders o1: should have the same lines as its first record"),
        ("a.jsonl:5", "products p1: should have the same title, price as its first record"),
    ]
    assert any(line.startswith("conflicts") for line in format_report(report))


def test_ids_that_do_not_meet_are_counted_with_examples(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        ("products", make_fields("products", "p1", START_MS)),
        ("orders", make_fields("orders", "o1", START_MS)),
        ("orders", make_fields("orders", "o2", START_MS, lines=[{"item_id": "i9", "quantity": 1, "unit_price": 1}])),
        ("labels", make_fields("labels", "l1", START_MS)),
        ("labels", make_fields("labels", "l2", START_MS, judged_event_id="o9")),
        ("impressions", make_fields("impressions", "v1", START_MS, recommendation_id="r1")),
        ("clicks", make_fields("clicks", "c1", START_MS, recommendation_id="r1")),
        ("clicks", make_fields("clicks", "c2", START_MS, recommendation_id="r9")),
    )
    unmet = write(tmp_path, path).unmet
    places_by_name = {name: [(e.place, e.detail) for e in finding.examples] for name, finding in unmet.items()}
    assert places_by_name == {
        "orders of unknown items": [("a.jsonl:3", "i9")],
        "labels of unknown events": [("a.jsonl:5", "o9")],
        "clicks of unknown recommendation ids": [("a.jsonl:8", "r9")],
    }


def test_labels_of_another_user_than_their_order_are_counted_with_both_users(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        ("labels", make_fields("labels", "l1", START_MS + 1, user_id="anon-5")),  # read before its order
        ("orders", make_fields("orders", "o1", START_MS, user_id=None, guest_id="anon-5")),
        ("orders", make_fields("orders", "o2", START_MS, user_id="cust8@x")),
        ("labels", make_fields("labels", "l2", START_MS + 1, user_id="Cust8@x", judged_event_id="o2")),
        ("labels", make_fields("labels", "l3", START_MS + 1, user_id="cust8@x", judged_event_id="o2")),
        ("labels", make_fields("labels", "l4", START_MS + 1, user_id=None, guest_id="anon-5")),
        ("orders", make_fields("orders", "o3", START_MS, user_id="null")),  # without a user: it takes any label
        ("labels", make_fields("labels", "l5", START_MS + 1, user_id="u7", judged_event_id="o3")),
        ("labels", make_fields("labels", "l6", START_MS - 1, user_id="null", judged_event_id="o2")),
    )
    finding = write(tmp_path, path).unmet["labels of another user than their event"]
    assert finding.records == 3
    assert [(example.place, example.detail) for example in finding.examples] == [
        ("a.jsonl:1", "o1: the label has the user `anon-5`, the event `guest:anon-5`"),
        ("a.jsonl:4", "o2: the label has the user `Cust8@x`, the event `cust8@x`"),
        ("a.jsonl:9", "o2: the label has the user ``, the event `cust8@x`"),
    ]


def test_events_of_one_id_and_several_users_meet_the_labels_of_each(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        ("searches", {"event_id": "o1", "ts_ms": START_MS, "user_id": "u2", "query": "tea"}),
        ("orders", make_fields("orders", "o1", START_MS)),
        ("labels", make_fields("labels", "l1", START_MS)),
        ("labels", make_fields("labels", "l2", START_MS, user_id="o1")),
        *(("labels", make_fields("labels", f"x{n}", START_MS, judged_event_id=f"x{n}")) for n in range(1_000)),
    )
    unmet = write(tmp_path, path).unmet
    foreign = unmet["labels of another user than their event"]
    assert [example.place for example in foreign.examples] == ["a.jsonl:4"]
    assert (foreign.records, unmet["labels of unknown events"].records) == (1, 1_000)


def test_events_from_the_cut_on_are_left_out(tmp_path: Path) -> None:
    events = [("clicks", make_fields("clicks", f"c{n}", START_MS + n)) for n in range(4)]
    report = write(tmp_path, write_lines(tmp_path / "a.jsonl", *events), until_ms=START_MS + 2)
    assert read_ids(tmp_path) == ["c0", "c1"]
    assert report.left_out == {"clicks": 2}


def test_a_history_appears_only_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.jsonl", ("clicks", make_fields("clicks", "c1", START_MS)))

    def fail(self: Normalisation) -> Iterator[bytes]:
        raise OSError("no space left")

    monkeypatch.setattr(Normalisation, "_sort_lines", fail)
    with pytest.raises(BadData, match="no space left"):
        write(tmp_path, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_history_is_the_same_whatever_the_runs(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl", *[("clicks", make_fields("clicks", f"c{n}", START_MS - n)) for n in range(9)]
    )
    decoder = DocumentDecoder(now_ms=NOW_MS)
    digests = [
        write_history(tmp_path / f"h{n}", parse_inputs([str(path)]), decoder=decoder)[0].digest for n in range(2)
    ]
    assert digests[0] == digests[1]


def test_words_that_name_no_input_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")
    with pytest.raises(BadConfig) as caught:
        parse_inputs([str(tmp_path / "none.jsonl"), str(tmp_path / "rows.csv")])
    assert len(caught.value.errors) == 2


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ("clicks", make_fields("clicks", "c1", START_MS)))
    (tmp_path / "history").mkdir()
    with pytest.raises(BadConfig, match="does not exist yet"):
        write(tmp_path, path)


def test_records_without_any_event_are_no_history(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("x\n")
    with pytest.raises(BadData, match="Found none in 1 records"):
        write(tmp_path, tmp_path / "a.jsonl")


def test_a_cut_history_is_refused_when_it_is_read(tmp_path: Path) -> None:
    events = [("clicks", make_fields("clicks", f"c{n}", START_MS + n)) for n in range(3)]
    write(tmp_path, write_lines(tmp_path / "a.jsonl", *events))
    part = tmp_path / "history" / read_manifest(tmp_path / "history").parts[0]
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(BadData, match=r"should have 3 events\. Found 2"):
        list(read_events(tmp_path / "history"))
    (tmp_path / "history" / MANIFEST).unlink()
    with pytest.raises(BadData, match="should be a history"):
        list(read_events(tmp_path / "history"))


def test_the_report_says_how_files_that_are_not_utf8_are_converted_and_what_became_of_ignored_values(
    tmp_path: Path,
) -> None:
    # given a line in another encoding, and an order with a voucher
    voucher = {"item_id": "v", "quantity": 1, "unit_price": -5.0}
    lines = [{"item_id": "i1", "quantity": 1, "unit_price": 5.0}, voucher, {**voucher, "quantity": 0}]
    path = write_lines(
        tmp_path / "a.jsonl", ("orders", make_fields("orders", "o1", START_MS, lines=lines, ip="no", user_id=None))
    )
    path.write_bytes(path.read_bytes() + '{"kind": "b\xfccher", "event": {}}\n'.encode("latin-1"))
    # when
    _, report = write_history(tmp_path / "history", parse_inputs([str(path)]), decoder=open_decoder())
    shown = "\n".join(format_report(report))
    # then
    assert "a.jsonl:2: A line should be UTF-8. Found: invalid start byte." in shown
    assert "converted by `iconv -f WINDOWS-1252 -t UTF-8 FILE`" in shown
    assert "orders.ip: absent, since its value cannot be read" in shown
    assert "orders.user_id: none, so that the user is unknown" in shown
    assert "orders.lines.unit_price: below 0, read as 0" in shown
    assert "orders.lines.quantity: lines of 0 or fewer pieces, left out" in shown
