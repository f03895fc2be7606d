"""Files as exports of other systems write them: each value under its name, or a reason why not."""

import gzip
from collections.abc import Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData, BadEvent
from contract.events.model import Event
from training.history.decoding import DocumentDecoder
from training.history.inputs import parse_inputs, read_documents
from training.history.normalisation import write_history

NOW_MS = 1_764_000_000_000
LINE = b'{"event_id": "c-1", "ts_ms": 1764000000000, "user_id": "u-1", "item_id": "M\xc3\xbcsli"}'
HEADER = "event_id,ts_ms,user_id,item_id,query\n"
ROW = f"c-1,{NOW_MS},u-1,Müsli,red\n"


def read(path: Path) -> list[Event | str]:
    """The events of a file of clicks, and the details of what is refused."""
    (file,) = parse_inputs([f"clicks={path}"])
    decoder, read_clicks = DocumentDecoder(now_ms=NOW_MS), list[Event | str]()
    for document in read_documents(file):
        try:
            read_clicks.append(decoder.decode(file, document).event)
        except BadEvent as error:
            read_clicks.append(str(error))
    return read_clicks


def read_content(folder: Path, name: str, content: bytes | str) -> list[Any]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(path)


def read_columns(folder: Path, **columns: Any) -> list[Any]:
    """The events of a Parquet file of one click with these columns."""
    click = {"event_id": ["c-1"], "ts_ms": [NOW_MS], "user_id": ["u-1"], "item_id": ["i-1"]}
    pq.write_table(pa.table({**click, **columns}), folder / "clicks.parquet")
    return read(folder / "clicks.parquet")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clicks.jsonl", LINE),
        ("clicks.jsonl", b"\xef\xbb\xbf" + LINE + b"\r\n"),
        ("clicks.jsonl", LINE.decode().encode("utf-16")),
        ("clicks.jsonl", LINE.decode().encode("utf-32")),
        ("clicks.jsonl.gz", gzip.compress(LINE, mtime=0)),
        ("clicks.csv", HEADER + ROW),
        ("clicks.csv", "\ufeff" + (HEADER + ROW).replace("\n", "\r\n")),
        ("clicks.csv", (HEADER + ROW).encode("utf-16")),
        ("clicks.csv.gz", gzip.compress((HEADER + ROW).encode(), mtime=0)),
        ("clicks.csv", (HEADER + ROW).replace(",", ";")),
        ("clicks.tsv", (HEADER + ROW).replace(",", "\t")),
        ("clicks.csv", (HEADER + ROW).replace(",", ", ")),
    ],
)
def test_a_file_is_read_in_each_encoding_and_with_each_separator(
    name: str, content: bytes | str, tmp_path: Path
) -> None:
    (click,) = read_content(tmp_path, name, content)
    assert (click.event_id, click.ts_ms, click.user_id, click.item_id) == ("c-1", NOW_MS, "u-1", "Müsli")


def test_a_row_with_more_cells_than_names_is_refused_and_shifts_no_value(tmp_path: Path) -> None:
    shifted, click = read_content(tmp_path, "clicks.csv", HEADER + f"c-0,{NOW_MS},u-1,mug, blue,red\n" + ROW)
    assert shifted == "A row should have at most 5 cells, one for each name. Found 6."
    assert click.query == "red"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("clicks.csv", HEADER.replace("query", "item_id") + ROW, "should name each column once. Found item_id"),
        ("clicks.csv", HEADER + ROW + f'c-2,{NOW_MS},"u-1,i-1,red\n' + ROW, "should be CSV. Found in line"),
        ("clicks.csv", (HEADER + ROW).encode("latin-1"), "clicks.csv should be UTF-8. Found byte 0xfc in line 2: "),
        ("clicks.csv", (HEADER + ROW).encode("latin-1"), "convert it by `iconv -f WINDOWS-1252 -t UTF-8 FILE`"),
        ("clicks.csv.gz", gzip.compress((HEADER + ROW).encode("latin-1"), mtime=0), "Found byte 0xfc in line 2: "),
        ("clicks.csv", (HEADER + ROW).encode("utf-16")[:-1], "should be a readable .csv file. Found: 'utf-16"),
        (
            "clicks.jsonl.gz",
            gzip.compress(LINE, mtime=0)[:-10],
            "should be a readable .jsonl file. Found: Compressed file ended",
        ),
        ("clicks.csv.gz", HEADER + ROW, "should be a readable .csv file. Found: Not a gzipped file"),
    ],
)
def test_a_file_whose_values_are_not_known_is_refused_as_a_whole(
    name: str, content: bytes | str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(BadData) as caught:
        read_content(tmp_path, name, content)
    assert reason in str(caught.value)


def test_a_long_cell_and_one_that_is_nested_too_deeply_cost_no_row(tmp_path: Path) -> None:
    header = HEADER.replace("query", "query,attributes")
    rows = f"c-1,{NOW_MS},u-1,i-1,{'x' * 200_000},{'[' * 100_000}\n"
    (click,) = read_content(tmp_path, "clicks.csv", header + rows)
    assert (len(click.query), click.attributes) == (512, None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([NOW_MS * 1_000_000 + 123], pa.timestamp("ns")), NOW_MS),
        (pa.array([NOW_MS * 1_000_000 + 999_999], pa.timestamp("ns", "Europe/Berlin")), NOW_MS),
        (pa.array([NOW_MS // 1_000], pa.timestamp("s")), NOW_MS),
        (pa.array([date(2025, 11, 24)], pa.date32()), 1_763_942_400_000),
    ],
)
def test_times_of_parquet_are_read_whatever_their_unit(times: Any, expected: int, tmp_path: Path) -> None:
    (click,) = read_columns(tmp_path, ts_ms=times)
    assert click.ts_ms == expected


@pytest.mark.parametrize(
    "times",
    [pa.array([2**60], pa.timestamp("ms")), pa.array([timedelta(1)]), pa.array([time(1)])],
)
def test_a_time_of_parquet_that_is_none_is_refused_with_its_row(times: Any, tmp_path: Path) -> None:
    (detail,) = read_columns(tmp_path, ts_ms=times)
    assert "Expected" in detail


@pytest.mark.parametrize(
    ("users", "ident"),
    [
        (pa.array([Decimal("12345678901234567890")], pa.decimal128(38, 0)), "12345678901234567890"),
        (pa.array([12345.0]), "12345"),
        (pa.array([b"u-1"]), "u-1"),
        (pa.array(["u-1"]).dictionary_encode(), "u-1"),
    ],
)
def test_ids_of_parquet_are_exact_whatever_their_type(users: Any, ident: str, tmp_path: Path) -> None:
    (click,) = read_columns(tmp_path, user_id=users)
    assert click.user_id == ident


def test_bytes_that_are_no_text_are_no_id(tmp_path: Path) -> None:
    (detail,) = read_columns(tmp_path, user_id=pa.array([b"\xff\x01"]))
    assert "UTF-8" in detail


def test_a_map_of_parquet_is_an_object(tmp_path: Path) -> None:
    attributes = pa.array([[("size", 42.0), ("weight", None)]], pa.map_(pa.string(), pa.float64()))
    (click,) = read_columns(tmp_path, attributes=attributes)
    assert click.attributes == {"size": 42.0}


@pytest.mark.parametrize("lines", [[b"[" + LINE + b"]"], [LINE[:40], LINE[:20]]])
def test_a_file_without_an_event_says_why(lines: Sequence[bytes], tmp_path: Path) -> None:
    path = tmp_path / "clicks.json"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(BadData, match=r"should have events. Found none in \d records. clicks.json:1: "):
        write_history(tmp_path / "history", parse_inputs([f"clicks={path}"]), decoder=DocumentDecoder(now_ms=NOW_MS))
