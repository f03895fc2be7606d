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


def find_neighbour_ids(arrays: dict[str, np.ndarray], item: str) -> list[str]:
    row = arrays["neighbours"][arrays["items"].tolist().index(item.encode())]
    return [arrays["items"][n].decode() for n in row if n >= 0]


def test_consecutive_items_of_a_user_are_neighbours_in_both_directions() -> None:
    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("v", "shoe", 1), ("v", "lace", 2)))

    assert find_neighbour_ids(actual, "tea") == ["cup"]
    assert find_neighbour_ids(actual, "cup") == ["tea"]
    assert find_neighbour_ids(actual, "shoe") == ["lace"]


def test_popularity_alone_does_not_make_a_closer_neighbour() -> None:
    together = [(f"u{n}", item, ts_ms) for n in range(3) for ts_ms, item in enumerate(("tea", "cup"))]
    elsewhere = [(f"w{n}", "hit", 1) for n in range(50)]
    mixed = [("x", "tea", 1), ("x", "hit", 2)]

    actual = find_neighbours(make_interactions(*together, *elsewhere, *mixed))

    assert find_neighbour_ids(actual, "tea") == ["cup", "hit"]


def test_a_repeated_item_is_its_own_neighbour() -> None:
    elsewhere = [(f"w{n}", item, ts_ms) for n in range(50) for ts_ms, item in enumerate(("shoe", "lace"))]

    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("u", "tea", 3), *elsewhere))

    assert find_neighbour_ids(actual, "tea") == ["tea", "cup"]
    own, other = actual["weights"][actual["items"].tolist().index(b"tea")][:2].tolist()
    assert own == pytest.approx(SELF_WEIGHT * other)
    assert find_neighbour_ids(actual, "cup") == ["tea"]


def test_every_item_is_its_own_neighbour_if_repetition_is_usual() -> None:
    actual = find_neighbours(make_interactions(("u", "tea", 1), ("u", "cup", 2), ("u", "tea", 3), ("v", "shoe", 1)))

    assert find_neighbour_ids(actual, "cup") == ["cup", "tea"]
    assert find_neighbour_ids(actual, "shoe") == ["shoe"]


def test_the_next_item_is_a_closer_neighbour_than_the_previous_one() -> None:
    visits = [(f"u{n}", item, ts_ms) for n in range(3) for ts_ms, item in enumerate(("home", "tea", "cup"))]

    actual = find_neighbours(make_interactions(*visits))

    assert find_neighbour_ids(actual, "tea") == ["cup", "home"]


def simulate_purchases(rng: np.random.Generator, users: int, days: int) -> list[tuple[str, str, int]]:
    """Baskets in a shop of eight kinds of ten items: five items of the user's kind, and always the same hit."""
    purchases = []
    for user in range(users):
        kind = user % 8
        for day in sorted(rng.choice(days, 4, replace=False).tolist()):
            items = [f"{kind}-{n}" for n in rng.choice(10, 5, replace=False)] + ["hit"]
            purchases += [(f"u{user}", item, day * 1_000 + n) for n, item in enumerate(rng.permutation(items))]
    return purchases


def test_the_similarity_with_the_higher_recall_is_exported(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_interactions(*simulate_purchases(np.random.default_rng(seed), 400, 100))
    for is_better in (True, False):
        shares = iter([0.2, 0.1] if is_better else [0.1, 0.2])
        monkeypatch.setattr(neighbours, "measure_recall", lambda *_, shares=shares: next(shares))
        selected = find_neighbours(table)
        monkeypatch.setattr(neighbours, "is_ease_better", lambda _, is_better=is_better: is_better)
        assert (selected["weights"] == find_neighbours(table)["weights"]).all()
        assert selected["fading"] == (0 if is_better else 1)
        monkeypatch.undo()


def test_the_linear_model_is_not_fitted_for_few_returning_users_or_many_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(neighbours, "pair_by_ease", lambda _: pytest.fail("it should not be called"))

    find_neighbours(make_interactions(*[(f"u{n}", f"i{n % 7}", n) for n in range(500)]))
    monkeypatch.setattr(neighbours, "ITEMS_MAX", 3)
    find_neighbours(make_interactions(*[(f"u{n % 150}", f"i{n % 7}", n) for n in range(1_500)]))


def test_a_linear_weight_discounts_what_another_item_predicts(seed: int) -> None:
    # given users with a and b, half of whom have c: b predicts c, and a only through b
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


def test_popularity_counts_users() -> None:
    often_by_one = [("u", "tea", ts_ms) for ts_ms in range(9)]

    actual = find_neighbours(make_interactions(*often_by_one, ("v", "cup", 1), ("w", "cup", 2)))

    assert [actual["items"][n] for n in actual["popular"]] == [b"cup", b"tea"]


def test_arrays_have_the_documented_shapes_and_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    interactions = [(f"u{rng.integers(9)}", f"i{rng.integers(200)}", n) for n in range(3_000)]

    actual = find_neighbours(make_interactions(*interactions))

    items = len(actual["items"])
    assert actual["neighbours"].shape == actual["weights"].shape == (items, NEIGHBOURS_MAX)
    assert [actual[name].dtype.name for name in ("neighbours", "weights")] == ["int32", "float32"]
    assert (actual["neighbours"] >= 0).all()
    assert (np.diff(actual["weights"], axis=1) <= 0).all()
    assert sorted(actual["popular"].tolist()) == list(range(items))


def test_no_interactions_give_no_neighbours() -> None:
    actual = find_neighbours(make_interactions())

    assert [len(actual[name]) for name in ("items", "neighbours", "weights", "popular")] == [0, 0, 0, 0]


def test_interactions_of_several_files_are_combined(tmp_path: Path) -> None:
    sink = io.BytesIO()
    pq.write_table(make_interactions(("u", "tea", 1)), sink)
    pq.write_table(make_interactions(("u", "cup", 2)), tmp_path / "more.parquet")

    actual = find_neighbours(read_all([b"", sink.getvalue(), tmp_path / "more.parquet"]))

    assert find_neighbour_ids(actual, "tea") == ["cup"]


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": ["u"]}), tmp_path / "more.parquet")

    with pytest.raises(BadData, match="Interactions should be Parquet with"):
        read_all([tmp_path / "more.parquet"])
