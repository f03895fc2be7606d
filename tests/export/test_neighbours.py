import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import BadData
from export import neighbours
from export.ease import fit_ease
from export.interactions import SCHEMA, read_all
from export.neighbours import NEIGHBOURS_MAX, SELF_WEIGHT, find_neighbours


def make_interactions(*interactions: tuple[str, str, int]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, interaction, strict=True)) for interaction in interactions], schema=SCHEMA
    )


def neighbour_ids(arrays: dict[str, np.ndarray], item: str) -> list[str]:
    row = arrays["neighbours"][arrays["items"].tolist().index(item.encode())]
    return [arrays["items"][n].decode() for n in row if n >= 0]


def test_items_that_one_user_took_near_each_other_are_neighbours_both_ways() -> None:
    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("v", "shoe", 1), ("v", "lace", 2)))

    assert neighbour_ids(actual, "tea") == ["cup"]
    assert neighbour_ids(actual, "cup") == ["tea"]
    assert neighbour_ids(actual, "shoe") == ["lace"]


def test_the_closest_neighbour_comes_first_and_popularity_alone_does_not_make_one() -> None:
    together = [(f"u{n}", item, at) for n in range(3) for at, item in enumerate(("tea", "cup"))]
    elsewhere = [(f"w{n}", "hit", 1) for n in range(50)]
    mixed = [("x", "tea", 1), ("x", "hit", 2)]

    actual = find_neighbours(make_interactions(*together, *elsewhere, *mixed))

    assert neighbour_ids(actual, "tea") == ["cup", "hit"]


def test_an_item_that_users_come_back_to_is_its_own_neighbour() -> None:
    elsewhere = [(f"w{n}", item, at) for n in range(50) for at, item in enumerate(("shoe", "lace"))]

    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("u", "tea", 3), *elsewhere))

    assert neighbour_ids(actual, "tea") == ["tea", "cup"]
    own, other = actual["weights"][actual["items"].tolist().index(b"tea")][:2].tolist()
    assert own == pytest.approx(SELF_WEIGHT * other)
    assert neighbour_ids(actual, "cup") == ["tea"]


def test_where_users_often_come_back_every_item_is_its_own_neighbour() -> None:
    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("u", "tea", 3), ("v", "shoe", 1)))

    assert neighbour_ids(actual, "cup") == ["cup", "tea"]
    assert neighbour_ids(actual, "shoe") == ["shoe"]


def test_what_is_taken_next_is_nearer_than_what_was_taken_before() -> None:
    passing = [(f"u{n}", item, at) for n in range(3) for at, item in enumerate(("home", "tea", "cup"))]

    actual = find_neighbours(make_interactions(*passing))

    assert neighbour_ids(actual, "tea") == ["cup", "home"]


def simulate_purchases(rng: np.random.Generator, users: int, days: int) -> list[tuple[str, str, int]]:
    """A shop of eight kinds of ten items each: users buy five of one kind now and then, and the one hit every time."""
    purchases = []
    for user in range(users):
        kind = user % 8
        for day in sorted(rng.choice(days, 4, replace=False).tolist()):
            items = [f"{kind}-{n}" for n in rng.choice(10, 5, replace=False)] + ["hit"]
            purchases += [(f"u{user}", item, day * 1_000 + at) for at, item in enumerate(rng.permutation(items))]
    return purchases


def test_of_the_two_ways_the_one_is_taken_that_finds_more_of_the_latest_interactions(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_interactions(*simulate_purchases(np.random.default_rng(seed), 400, 100))
    for is_better in (True, False):
        shares = iter([0.2, 0.1] if is_better else [0.1, 0.2])
        monkeypatch.setattr(neighbours, "measure_recall", lambda *_, shares=shares: next(shares))
        chosen = find_neighbours(table)
        monkeypatch.setattr(neighbours, "is_ease_better", lambda _, is_better=is_better: is_better)
        assert (chosen["weights"] == find_neighbours(table)["weights"]).all()
        assert chosen["fading"] == (0 if is_better else 1)
        monkeypatch.undo()


def test_the_linear_way_is_not_asked_where_few_users_came_back_or_items_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "pair_by_ease", lambda _: pytest.fail("it should not be asked"))

    find_neighbours(make_interactions(*[(f"u{n}", f"i{n % 7}", n) for n in range(500)]))
    monkeypatch.setattr(neighbours, "ITEMS_MAX", 3)
    find_neighbours(make_interactions(*[(f"u{n % 150}", f"i{n % 7}", n) for n in range(1_500)]))


def test_a_linear_weight_takes_away_what_another_item_says(seed: int) -> None:
    # given users who have a and b, and of these half c: b alone speaks for c, and a only through b
    rng = np.random.default_rng(seed)
    has_a = rng.random(20_000) < 0.5
    has_b = np.where(has_a, rng.random(20_000) < 0.8, rng.random(20_000) < 0.2)
    has_c = has_b & (rng.random(20_000) < 0.5)
    user, item = np.nonzero(np.stack([has_a, has_b, has_c], 1))
    # when
    weights = fit_ease(user, item, 3, ridge=10.0)
    # then
    assert weights[1, 2] > 0.4
    assert abs(weights[0, 2]) < 0.1
    assert (np.diag(weights) == 0).all()


def test_popular_items_are_those_that_most_users_took() -> None:
    often_by_one = [("u", "tea", at) for at in range(9)]

    actual = find_neighbours(make_interactions(*often_by_one, ("v", "cup", 1), ("w", "cup", 2)))

    assert [actual["items"][n] for n in actual["popular"]] == [b"cup", b"tea"]


def test_arrays_have_the_stated_shapes_and_no_more_neighbours_than_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    taken = [(f"u{rng.integers(9)}", f"i{rng.integers(200)}", n) for n in range(3_000)]

    actual = find_neighbours(make_interactions(*taken))

    items = len(actual["items"])
    assert actual["neighbours"].shape == actual["weights"].shape == (items, NEIGHBOURS_MAX)
    assert [actual[name].dtype.name for name in ("neighbours", "weights")] == ["int32", "float32"]
    assert (actual["neighbours"] >= 0).all()
    assert (np.diff(actual["weights"], axis=1) <= 0).all()
    assert sorted(actual["popular"].tolist()) == list(range(items))


def test_without_any_interaction_there_are_no_neighbours() -> None:
    actual = find_neighbours(make_interactions())

    assert [len(actual[name]) for name in ("items", "neighbours", "weights", "popular")] == [0, 0, 0, 0]


def test_interactions_of_several_files_count_together(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(make_interactions(("u", "tea", 1)), sink)
    pq.write_table(make_interactions(("u", "cup", 2)), tmp_path / "more.parquet")

    actual = find_neighbours(read_all([b"", sink.getvalue(), tmp_path / "more.parquet"]))

    assert neighbour_ids(actual, "tea") == ["cup"]


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"]}), tmp_path / "more.parquet")

    with pytest.raises(BadData, match="Interactions should be Parquet with"):
        read_all([tmp_path / "more.parquet"])
