import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from export.interactions import SCHEMA, read_all
from export.neighbours import NEIGHBOURS_MAX, count_neighbours


def table_of(*taken: tuple[str, str, int]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, one, strict=True)) for one in taken], schema=SCHEMA)


def neighbours_of(arrays: dict[str, np.ndarray], item: str) -> list[str]:
    row = arrays["neighbours"][arrays["items"].tolist().index(item.encode())]
    return [arrays["items"][n].decode() for n in row if n >= 0]


def test_items_that_one_user_took_near_each_other_are_neighbours_both_ways() -> None:
    found = count_neighbours(table_of(("u", "tea", 1), ("u", "cup", 2), ("v", "shoe", 1), ("v", "lace", 2)))

    assert neighbours_of(found, "tea") == ["cup"]
    assert neighbours_of(found, "cup") == ["tea"]
    assert neighbours_of(found, "shoe") == ["lace"]


def test_the_closest_neighbour_comes_first_and_popularity_alone_does_not_make_one() -> None:
    together = [(f"u{n}", item, at) for n in range(3) for at, item in enumerate(("tea", "cup"))]
    elsewhere = [(f"w{n}", "hit", 1) for n in range(50)]
    mixed = [("x", "tea", 1), ("x", "hit", 2)]

    found = count_neighbours(table_of(*together, *elsewhere, *mixed))

    assert neighbours_of(found, "tea") == ["cup", "hit"]


def test_nobody_is_their_own_neighbour() -> None:
    found = count_neighbours(table_of(("u", "tea", 1), ("u", "tea", 2), ("u", "tea", 3)))

    assert neighbours_of(found, "tea") == []


def test_popular_items_are_those_that_most_users_took() -> None:
    often_by_one = [("u", "tea", at) for at in range(9)]

    found = count_neighbours(table_of(*often_by_one, ("v", "cup", 1), ("w", "cup", 2)))

    assert [found["items"][n] for n in found["popular"]] == [b"cup", b"tea"]


def test_arrays_have_the_stated_shapes_and_no_more_neighbours_than_the_bound(seed: int) -> None:
    chance = np.random.default_rng(seed)
    taken = [(f"u{chance.integers(9)}", f"i{chance.integers(200)}", n) for n in range(3_000)]

    found = count_neighbours(table_of(*taken))

    items = len(found["items"])
    assert found["neighbours"].shape == found["weights"].shape == (items, NEIGHBOURS_MAX)
    assert [found[name].dtype.name for name in ("neighbours", "weights")] == ["int32", "float32"]
    assert (found["neighbours"] >= 0).all()
    assert (np.diff(found["weights"], axis=1) <= 0).all()
    assert sorted(found["popular"].tolist()) == list(range(items))


def test_without_any_interaction_there_are_no_neighbours() -> None:
    found = count_neighbours(table_of())

    assert [len(found[name]) for name in ("items", "neighbours", "weights", "popular")] == [0, 0, 0, 0]


def test_interactions_of_several_files_count_together(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(table_of(("u", "tea", 1)), sink)
    pq.write_table(table_of(("u", "cup", 2)), tmp_path / "more.parquet")

    found = count_neighbours(read_all([b"", sink.getvalue(), tmp_path / "more.parquet"]))

    assert neighbours_of(found, "tea") == ["cup"]


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"]}), tmp_path / "more.parquet")

    with pytest.raises(BadData, match="Interactions should be Parquet with"):
        read_all([tmp_path / "more.parquet"])
