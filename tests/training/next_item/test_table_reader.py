"""`training.next_item.table_reader`: what of a table is used, and what is left out and why."""

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from contract.events.model import Erasure
from contract.profiles.erasures import Erasures
from training.data.erased_rows import find_erased
from training.next_item.table_reader import InteractionTable, read_interaction_tables

NO_ERASURES = Erasures()


def read(folder: Path, **columns: list[Any]) -> InteractionTable:
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return read_interaction_tables([folder / "table.parquet"], NO_ERASURES)


def list_rows(table: InteractionTable) -> list[tuple[str, str, int, int]]:
    return [tuple(row.values()) for row in table.table.to_pylist()]


def test_rows_come_by_user_and_time_whatever_their_order(tmp_path: Path) -> None:
    actual = read(tmp_path, user_id=["v", "u", "u"], item_id=["a", "b", "c"], ts_ms=[5, 9, 2])
    assert list_rows(actual) == [("u", "c", 2, 1), ("u", "b", 9, 1), ("v", "a", 5, 1)]
    assert actual.left_out == {}
    assert actual.has_times


def test_each_row_that_is_not_used_is_counted_once_with_its_reason(tmp_path: Path) -> None:
    nan, inf = float("nan"), float("inf")
    actual = read(
        tmp_path,
        user=["u", None, "u", "u", "u", "u", "u", "u", "u"],
        item=["a", "a", "", "b", "b", "b", "b", "b", "c"],
        time=[1.0, 1.0, 1.0, nan, inf, 2.0, 2.0, 2.0, 3.0],
        action=["click", "click", "click", "click", "cart", "dance", "order", "order", "Purchase"],
        quantity=[None, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, nan, 2.0],
        price=[None, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
    )
    assert list_rows(actual) == [("u", "a", 1, 1), ("u", "c", 3, 3)]
    assert actual.left_out == {
        "without user or item": 2,
        "of a time that is not readable": 2,
        "of an unknown action": 1,
        "of a quantity that is not positive": 2,
    }


def test_duplicate_rows_count_once_and_an_item_clicked_500_times_counts_20_times(tmp_path: Path) -> None:
    clicks, doubles = 500, 3
    actual = read(
        tmp_path,
        user_id=["u"] * (clicks + doubles),
        item_id=["a"] * clicks + ["b"] * doubles,
        ts_ms=[*range(clicks), *[7] * doubles],
    )
    assert actual.left_out == {
        "twice in the table": doubles - 1,
        "of a user with one item beyond the latest 20": clicks - 20,
    }
    assert [row[2] for row in list_rows(actual) if row[1] == "a"] == list(range(clicks - 20, clicks))


def test_csv_keeps_the_zeros_of_ids_and_reads_dates(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("user,item,time\n007,01,2026-01-02 03:04:05\n007,02,2026-01-02 03:04:06\n")
    actual = read_interaction_tables([tmp_path / "table.csv"], NO_ERASURES)
    first_ms = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()) * 1000
    assert list_rows(actual) == [("007", "01", first_ms, 1), ("007", "02", first_ms + 1000, 1)]


FIRST_MS = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "userId,itemId,timestamp\n1,7,1700000000\n1,8,1700000001\n",
            [("1", "7", FIRST_MS, 1), ("1", "8", FIRST_MS + 1000, 1)],
        ),
        (  # RetailRocket
            "timestamp,visitorid,event,itemid,transactionid\n1700000000000,1,view,7,\n1700000000001,1,addtocart,7,\n"
            "1700000000002,1,transaction,7,4\n",
            [("1", "7", FIRST_MS, 1), ("1", "7", FIRST_MS + 1, 2), ("1", "7", FIRST_MS + 2, 3)],
        ),
        (  # REES46
            "event_time,event_type,product_id,category_id,price,user_id\n"
            "2023-11-14 22:13:20 UTC,view,7,1,3.5,1\n2023-11-14 22:13:21 UTC,purchase,7,1,3.5,1\n",
            [("1", "7", FIRST_MS, 1), ("1", "7", FIRST_MS + 1000, 3)],
        ),
        (
            "time,timestamp,user,item\n1700000000000000,3,1,7\n1700000000001000,4,1,8\n",
            [("1", "7", FIRST_MS, 1), ("1", "8", FIRST_MS + 1, 1)],
        ),
    ],
    ids=["seconds", "names of actions", "texts as times", "microseconds, two columns of times"],
)
def test_columns_have_the_names_and_times_the_units_that_other_systems_write(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, expected: list[tuple[str, str, int, int]]
) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert list_rows(read_interaction_tables([path], NO_ERASURES)) == expected
    is_in_ms = str(FIRST_MS) + "," in text or "UTC" in text
    assert ("should be in ms. They look like" in caplog.text) == (not is_in_ms)


def test_ids_are_as_workers_read_them_and_placeholders_are_no_users(tmp_path: Path) -> None:
    actual = read(tmp_path, user_id=[12345.0, None, 0.0], item_id=[7, 8, 9], action=[" Click ", "click", "click"])
    assert list_rows(actual) == [("12345", "7", 0, 1)]
    named = read(tmp_path, user_id=["u", "null", " Guest", "u"], item_id=["a", "a", "a", "undefined"])
    assert list_rows(named) == [("u", "a", 0, 1)]
    assert actual.left_out == {"without user or item": 1, "of a user or item that is a placeholder": 1}
    assert named.left_out == {"of a user or item that is a placeholder": 3}


def test_people_are_erased_whatever_the_type_of_their_ids_and_times(tmp_path: Path) -> None:
    erasures = Erasures([Erasure(event_id="e", ts_ms=5, user_id="12345")])
    times = pa.array([4, 6, None], pa.timestamp("ms"))
    table = pa.table({"user_id": [12345.0, 12345.0, None], "ts_ms": times})
    assert find_erased(table, erasures).tolist() == [True, False, False]


def test_without_times_the_rows_are_in_order(tmp_path: Path) -> None:
    actual = read(tmp_path, user_id=["u", "v", "u"], item_id=["z", "y", "a"])
    assert not actual.has_times
    history = actual.to_history()
    assert [history.names[item] for item in history.item] == [b"z", b"a", b"y"]


def test_erased_people_are_left_out(tmp_path: Path) -> None:
    erasures = Erasures([Erasure(event_id="e", ts_ms=5, user_id="u")])
    pq.write_table(pa.table({"user_id": ["u", "u"], "item_id": ["a", "b"], "ts_ms": [4, 6]}), tmp_path / "t.parquet")
    actual = read_interaction_tables([tmp_path / "t.parquet"], erasures)
    assert list_rows(actual) == [("u", "b", 6, 1)]
    assert actual.left_out == {"of erased people": 1}


def test_a_table_without_users_and_a_file_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"users and items \(`user_id` or `user` .*\)\. Found `item_id`\."):
        read(tmp_path, item_id=["a"])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "table.parquet").read_bytes()[:-20])
    with pytest.raises(BadData, match="should be interactions as Parquet or CSV"):
        read_interaction_tables([tmp_path / "cut.parquet"], NO_ERASURES)
