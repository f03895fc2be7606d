"""`worker map try`: what it prints of records in a file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contract.errors import BadConfig
from contract.settings.reading import Settings
from tests.contract.mapping.test_topic_map import CLICK_FIELDS, ORDER, ORDER_FIELDS
from transport.record_reader import RecordReader
from transport.records import Record, TopicPartition
from worker.mapping.trial import try_map, try_record

MAPS = {
    "orders": {"topics": "acme.orders", "kind": "orders", "fields": ORDER_FIELDS},
    "clicks": {
        "topics": "acme.track",
        "kind": {"path": "type", "table": {"view": "clicks"}},
        "fields": {**CLICK_FIELDS, "device_id": {"header": "device"}},
    },
}
CLICK = {"type": "view", "id": "c1", "ms": 1_764_000_000_000, "user": "u1", "sku": "A"}


def run(path: Path, capsys: pytest.CaptureFixture[str], name: str | None = "clicks", **maps: Any) -> tuple[int, Any]:
    status = try_map(Settings(map=maps or MAPS), str(path), name, 10, as_json=True)
    return status, json.loads(capsys.readouterr().out)


def write_lines(folder: Path, *lines: object) -> Path:
    path = folder / "records.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_each_record_is_shown_as_an_event_as_skipped_or_as_a_dead_letter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    path = write_lines(tmp_path, CLICK, {"type": "login"}, {"type": "view", "id": "c2"}, "{bad")
    # when
    status, (event, skipped, missing, bad) = run(path, capsys)
    # then
    assert status == 1
    assert event["kind"] == "clicks"
    assert event["event"]["item_id"] == "A"
    assert "device_id" in event["absent"]
    assert "'login'" in skipped["skipped"]
    assert missing["reason"] == "missing_field"
    assert "user_id at `user`" in missing["detail"]
    assert bad["reason"] == "not_json"


def test_keys_and_headers_of_kcat_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"topic": "t", "headers": ["device", "d-1"], "key": "k", "payload": json.dumps(CLICK)}
    status, (event,) = run(write_lines(tmp_path, line), capsys)
    assert (status, event["event"]["device_id"]) == (0, "d-1")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"x": ' + "[" * 5_000 + "]" * 5_000 + "}", "too_deep"),
        ("[" * 5_000, "too_deep"),
        ('{"topic": "t", "headers": 5, "payload": "{}"}', "missing_field"),
        ('{"topic": "t", "headers": {"a": 1}, "key": [1], "payload": null}', "empty"),
    ],
)
def test_an_odd_line_is_shown_as_a_dead_letter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    status, (event, odd) = run(write_lines(tmp_path, CLICK, line), capsys)
    assert (status, event["reason"], odd["reason"]) == (1, "", reason)


def test_what_a_record_of_a_schema_registry_lacks_is_shown_with_its_place() -> None:
    # given a reader whose registry gives a document without a user
    deserializer: Any = SimpleNamespace(read=lambda topic, value: {"id": "c1", "type": "view"})
    reader = RecordReader(Settings(map={"clicks": MAPS["clicks"]}).event_topics(), deserializer=deserializer)
    topic = next(iter(reader.topics.maps))
    # when
    trial = try_record(reader, Record(TopicPartition(topic, 0), 0, None, b"\0\0\0\0\x07data", (), -1))
    # then
    assert trial.reason == "missing_field"
    assert "user_id at `user`" in trial.detail


def test_a_list_and_a_single_document_are_records_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "records.json"
    for text, count in ((json.dumps([CLICK, CLICK], indent=2), 2), (json.dumps(CLICK, indent=2), 1)):
        path.write_text(text)
        assert len(run(path, capsys)[1]) == count


def test_the_table_names_what_is_never_present(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert try_map(Settings(map=MAPS), str(write_lines(tmp_path, CLICK)), "clicks", 10, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "1 records: 1 clicks, 0 skipped, 0 dead letters" in shown
    assert "clicks: never present: attributes, guest_id, session_id, surface" in shown


@pytest.mark.parametrize(
    ("source", "nearest"), [("exports/orders.json", ""), ("acme.order", "; the nearest is `acme.orders`")]
)
def test_a_source_that_is_neither_a_file_nor_a_topic_is_refused_without_kafka(source: str, nearest: str) -> None:
    with pytest.raises(BadConfig) as caught:
        try_map(Settings(map=MAPS), source, None, 10, as_json=True)
    assert caught.value.errors == [
        f"`{source}` should be a file, or the topic of a kind or of a map. Found neither{nearest}."
    ]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (1_764_000_000_250, "2025-11-24T16:00:00.250+00:00"),
        (1_764_000_000, "1970-01-21T10:00:00.000+00:00"),
        (2**53, "after the year 9999"),
    ],
)
def test_a_time_is_shown_in_utc_too(tmp_path: Path, capsys: pytest.CaptureFixture[str], ms: int, shown: str) -> None:
    try_map(Settings(map=MAPS), str(write_lines(tmp_path, {**CLICK, "ms": ms})), "clicks", 10, as_json=False)
    assert f"    ts_ms                   {ms}  {shown}\n" in capsys.readouterr().out


def test_an_unknown_user_is_named_among_what_is_absent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_lines(tmp_path, {**CLICK, "user": None}, {"type": "view", "id": "c2", "ms": 1, "sku": "A"})
    assert try_map(Settings(map=MAPS), str(path), "clicks", 10, as_json=False) == 0
    shown = capsys.readouterr().out
    assert shown.count("    absent: user_id, ") == 2
    assert "clicks: never present: user_id, " in shown


def test_a_map_that_is_not_named_or_does_not_exist_is_asked_for(tmp_path: Path) -> None:
    path = str(write_lines(tmp_path, CLICK))
    with pytest.raises(BadConfig, match="Found the maps orders, clicks"):
        try_map(Settings(map=MAPS), path, None, 10, as_json=True)
    with pytest.raises(BadConfig, match="the nearest is `clicks`"):
        try_map(Settings(map=MAPS), path, "click", 10, as_json=True)


def test_a_map_without_topics_reads_the_records_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # given maps for files alone
    path, table = write_lines(tmp_path, CLICK), {"kind": "clicks", "fields": CLICK_FIELDS}
    # when
    status, (event,) = run(path, capsys, "old_clicks", old_clicks=table, more_clicks={**table, "topics": []})
    alone, _ = run(path, capsys, None, old_clicks=table)
    # then
    assert (status, alone) == (0, 0)
    assert event["event"]["item_id"] == "A"
    assert event["place"].startswith("map.old_clicks")
    # and of several it has to be named
    with pytest.raises(BadConfig, match="Found the maps old_clicks, clicks"):
        run(path, capsys, None, old_clicks=table, clicks=MAPS["clicks"])


def test_a_dead_letter_shows_the_value_that_was_found_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    path = write_lines(
        tmp_path,
        {**ORDER, "total": "12,500"},
        {**ORDER, "items": [ORDER["items"][0], {"sku": "A", "n": "many", "price": 1}]},
        {**ORDER, "items": []},
        {**ORDER, "items": [{"sku": "A", "n": 1}]},
    )
    # when
    status, (amount, quantity, empty, entry) = run(path, capsys, "orders")
    # then
    assert status == 1
    assert amount["detail"].endswith('Found "12,500" at `total`.')
    assert quantity["detail"].endswith('Found "many" at `items[].n`.')
    assert empty["detail"].endswith("Found [] at `items[].sku`, `items[].n`, `items[].price`.")
    assert entry["detail"].endswith("Nothing found at `items[].price`.")


def test_an_optional_field_that_cannot_be_read_is_shown_with_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_lines(tmp_path, {**ORDER, "ship": {"country": ["DE"]}})
    assert try_map(Settings(map=MAPS), str(path), "orders", 10, as_json=False) == 0
    assert 'shipping_country        ignored, since it cannot be read: ["DE"]' in capsys.readouterr().out


def test_a_map_of_guests_alone_shows_the_user_as_whom_the_guest_acts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # given a topic of visits without users
    fields = {name: source for name, source in CLICK_FIELDS.items() if name != "user_id"} | {"guest_id": "visitor"}
    lines = write_lines(tmp_path, {**CLICK, "visitor": "v-1"}, {**CLICK, "visitor": "unknown"})
    # when
    status, (event, unknown) = run(lines, capsys, "visits", visits={"topics": "v", "kind": "clicks", "fields": fields})
    # then
    assert status == 0
    assert event["event"]["user_id"] == "guest:v-1"
    assert unknown["event"]["user_id"] == ""


@pytest.mark.parametrize("name", ["records.csv", "records.parquet", "records.jsonl.gz"])
def test_a_file_that_is_not_json_lines_is_refused_with_the_command_that_reads_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"id;at;user\n")
    with pytest.raises(BadConfig, match=rf"JSON Lines.* `python -m training history map\.NAME={path}"):
        try_map(Settings(map=MAPS), str(path), "clicks", 10, as_json=True)


def test_a_time_that_cannot_be_read_says_what_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, (event,) = run(write_lines(tmp_path, {**CLICK, "ms": "22.09.2026 01:05"}), capsys)
    assert event["detail"].startswith("Expected ISO 8601, a date of RFC 2822 or a number, got '22.09.2026 01:05'")
    assert event["detail"].endswith('Found "22.09.2026 01:05" at `ms`.')
