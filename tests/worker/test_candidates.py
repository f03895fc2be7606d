"""Candidates: which items may be on a user's list, and in which order they are drawn."""

from collections.abc import Sequence

import numpy as np
import pytest

from contract.encoding import Encoder
from contract.hashing import hash_id
from tests.worker.shop import FEATURES, NOW_MS, product
from worker.candidates import Candidates, in_turn
from worker.catalogue import Catalogue, Popularity
from worker.runtime import Neighbours

ITEMS = [f"i{n}" for n in range(12)]


def linked(*items: str) -> list[int]:
    """Items as profiles remember them."""
    return [hash_id(f"item:{item}") for item in items]


def neighbours(**near: Sequence[str]) -> Neighbours:
    rows = np.full((len(ITEMS), 4), -1, np.int32)
    for item, others in near.items():
        rows[ITEMS.index(item), : len(others)] = [ITEMS.index(other) for other in others]
    return Neighbours(ITEMS, rows, np.zeros(0, np.int32))


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue(Encoder(FEATURES))
    for item in ITEMS:
        made.put(product(item))
    return made


def draw(catalogue: Catalogue, popular: Sequence[str] = (), candidates_max: int = 100) -> Candidates:
    popularity = Popularity()
    for rank, item in enumerate(popular):
        popularity.note(item, NOW_MS, 100.0 - rank)
    made = Candidates(catalogue=catalogue, popularity=popularity, candidates_max=candidates_max)
    made.refresh()
    return made


def test_neighbours_come_in_turn_then_the_recent_items_then_popular_ones(catalogue: Catalogue) -> None:
    # given
    candidates = draw(catalogue, ["i9", "i1", "i10"])
    near = neighbours(i0=["i2", "i3", "i4"], i1=["i5"])
    # when
    found = candidates.of(linked("i0", "i1"), (), near)
    # then
    assert found == [
        ("i2", "neighbour"),
        ("i5", "neighbour"),
        ("i3", "neighbour"),
        ("i4", "neighbour"),
        ("i0", "recent"),
        ("i1", "recent"),
        ("i9", "popular"),
        ("i10", "popular"),
    ]


def test_sold_out_and_just_bought_items_are_left_out_wherever_they_come_from(catalogue: Catalogue) -> None:
    # given one item of each source that cannot be had and one that was bought
    catalogue.put(product("i2", available=False))
    catalogue.put(product("i0", stock=0))
    catalogue.delist("i9")
    candidates = draw(catalogue, ["i9", "i10", "i11"])
    # when
    found = candidates.of(linked("i0", "i1"), {"i5", "i10"}, neighbours(i0=["i2", "i3"], i1=["i5"]))
    # then
    assert [candidate.item_id for candidate in found] == ["i3", "i1", "i11"]


def test_an_item_that_is_counted_as_in_stock_or_not_counted_at_all_may_be_recommended(catalogue: Catalogue) -> None:
    catalogue.put(product("i1", stock=1))

    assert [c.item_id for c in draw(catalogue).of(linked("i1", "i2"), (), None)] == ["i1", "i2"]


@pytest.mark.parametrize("candidates_max", [1, 3, 12, 13])
def test_there_are_at_most_so_many(catalogue: Catalogue, candidates_max: int) -> None:
    candidates = draw(catalogue, ITEMS, candidates_max)

    found = candidates.of(linked("i3"), (), neighbours(i3=["i4"]))

    assert len(found) == min(candidates_max, len(ITEMS)) == len({c.item_id for c in found})
    assert len(candidates.popular()) == min(candidates_max, len(ITEMS))


def test_items_that_no_product_describes_are_no_candidates(catalogue: Catalogue) -> None:
    candidates = draw(catalogue, ["unheard", "i1"])

    found = candidates.of(linked("unheard of", "i0"), (), None)

    assert [candidate.item_id for candidate in found] == ["i0", "i1"]


def test_without_neighbours_and_history_the_popular_ones_are_left(catalogue: Catalogue) -> None:
    assert draw(catalogue, ["i4", "i2"]).of([], (), None) == [("i4", "popular"), ("i2", "popular")]


def test_lists_of_different_length_take_turns_until_all_are_done() -> None:
    lists = [[(c, "") for c in chosen] for chosen in ("abc", "", "d")]

    assert "".join(item for item, _ in in_turn(lists)) == "adbc"  # type: ignore[arg-type]
