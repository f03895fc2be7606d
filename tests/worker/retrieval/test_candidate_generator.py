"""Candidates: which items may be on a user's list, and in which order they are drawn."""

from collections.abc import Sequence

import numpy as np
import pytest

from contract.features.encoder import Encoder
from contract.hashing import item_hash
from contract.settings import ListSettings
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import NeighbourTable
from worker.retrieval.candidate_generator import SOURCES, CandidateGenerator, UserCandidates
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.popularity import Popularity

ITEMS = [f"i{n}" for n in range(12)]
DAY_MS = 86_400_000


def make_neighbours(fading: float = 1.0, **near: Sequence[str]) -> NeighbourTable:
    """Each item's neighbours, the first twice as near as the second."""
    rows = np.full((len(ITEMS), 4), -1, np.int32)
    for item, neighbour_rows in near.items():
        rows[ITEMS.index(item), : len(neighbour_rows)] = [ITEMS.index(other) for other in neighbour_rows]
    weights = np.broadcast_to(np.array([1, 0.5, 0.25, 0.125], np.float32), rows.shape)
    hashes = np.array([item_hash(item) for item in ITEMS], np.uint64)
    return NeighbourTable(hashes, rows, weights, np.zeros(0, np.int32), fading)


class CandidateHarness:
    """Draws from a catalogue of twelve items, i0 to i11, by their names."""

    def __init__(self, near: NeighbourTable | None = None, *, candidates_max: int = 100, explore: float = 0.0) -> None:
        self.catalogue = Catalogue(Encoder(FEATURES))
        for item in ITEMS:
            self.catalogue.put(make_product(item))
        self.lists = ListSettings(candidates=candidates_max, explore=explore, length=10)
        self.nearby, self.popularity = ItemNeighbours(self.catalogue), Popularity(self.catalogue, 5.0)
        self.nearby.activate(near)
        self.fresh = FreshItems(self.catalogue, self.lists)

    def set_popular(self, *items: str) -> None:
        self.popularity.seed(self.catalogue.find(items))
        self.popularity.rank()

    def generate(self, *recent: str, bought: Sequence[str] = (), seed: int = 1) -> UserCandidates:
        made = CandidateGenerator(
            catalogue=self.catalogue,
            neighbours=self.nearby,
            popularity=self.popularity,
            fresh_items=self.fresh,
            candidates_max=self.lists.candidates,
        )
        hashes = np.array([[item_hash(item) for item in recent]], np.uint64)
        (candidates,) = made.generate(hashes, [self.catalogue.find(bought)], [seed])
        return candidates

    def generate_named(self, *recent: str, bought: Sequence[str] = ()) -> list[tuple[str, str]]:
        candidates = self.generate(*recent, bought=bought)
        return list(
            zip(self.catalogue.item_ids(candidates.numbers), (SOURCES[why] for why in candidates.sources), strict=True)
        )


def test_neighbours_come_first_then_the_recent_items_then_popular_ones_of_their_category_then_of_all() -> None:
    # given
    drawing = CandidateHarness(make_neighbours(i0=["i2", "i3", "i4"], i1=["i5"]))
    drawing.catalogue.put(make_product("i0", category="shoes"))
    drawing.catalogue.put(make_product("i10", category="shoes"))
    drawing.set_popular("i9", "i1", "i10")
    # when
    actual = drawing.generate_named("i0", "i1")
    # then the older item speaks with half the voice
    assert actual == [
        ("i2", "neighbour"),
        ("i3", "neighbour"),
        ("i5", "neighbour"),
        ("i4", "neighbour"),
        ("i0", "recent"),
        ("i1", "recent"),
        ("i10", "category"),
        ("i9", "popular"),
    ]


def test_an_item_that_several_recent_ones_speak_for_comes_first() -> None:
    drawing = CandidateHarness(make_neighbours(i0=["i2", "i3"], i1=["i4", "i3"], i5=["i3"]))

    assert [item for item, _ in drawing.generate_named("i0", "i1", "i5")][:3] == ["i3", "i2", "i4"]


def test_where_nothing_fades_the_newest_item_speaks_no_louder_than_the_oldest() -> None:
    near = {"i0": ["i7", "i2"], "i1": ["i3"], "i5": ["i3"]}

    actual = [
        [item for item, _ in CandidateHarness(make_neighbours(fading, **near)).generate_named("i0", "i1", "i5")]
        for fading in (0, 9)
    ]

    assert [items[:2] for items in actual] == [["i3", "i7"], ["i7", "i2"]]


def test_an_item_that_users_come_back_to_stands_where_it_belongs_and_is_called_recent() -> None:
    drawing = CandidateHarness(make_neighbours(i0=["i2", "i0", "i3"]))

    assert drawing.generate_named("i0") == [("i2", "neighbour"), ("i0", "recent"), ("i3", "neighbour")]


def test_sold_out_and_just_bought_items_are_left_out_wherever_they_come_from() -> None:
    # given one item of each source that cannot be had and one that was bought
    drawing = CandidateHarness(make_neighbours(i0=["i2", "i3"], i1=["i5"]))
    drawing.catalogue.put(make_product("i2", available=False))
    drawing.catalogue.put(make_product("i0", stock=0))
    drawing.catalogue.delist("i9")
    drawing.set_popular("i9", "i10", "i11")
    # when
    actual = drawing.generate_named("i0", "i1", bought=["i5", "i10", "unheard of"])
    # then
    assert [item for item, _ in actual] == ["i3", "i1", "i11"]


def test_an_item_that_is_counted_as_in_stock_or_not_counted_at_all_may_be_recommended() -> None:
    drawing = CandidateHarness()
    drawing.catalogue.put(make_product("i1", stock=1))

    assert [item for item, _ in drawing.generate_named("i1", "i2")] == ["i1", "i2"]


@pytest.mark.parametrize("candidates_max", [1, 3, 12, 13])
def test_there_are_at_most_so_many(candidates_max: int) -> None:
    drawing = CandidateHarness(make_neighbours(i3=["i4"]), candidates_max=candidates_max)
    drawing.set_popular(*ITEMS)

    actual = drawing.generate("i3").numbers.tolist()

    assert len(actual) == min(candidates_max, len(ITEMS)) == len(set(actual))


def test_neighbours_that_no_product_describes_are_candidates_from_the_look_after_they_came() -> None:
    # given a catalogue to which the one neighbour that the bundle names comes later
    drawing = CandidateHarness(make_neighbours(i0=["i1"]))
    catalogue = Catalogue(Encoder(FEATURES))
    catalogue.put(make_product("i0"))
    drawing.catalogue, drawing.nearby = catalogue, ItemNeighbours(catalogue)
    drawing.popularity, drawing.fresh = Popularity(catalogue, 5.0), FreshItems(catalogue, drawing.lists)
    drawing.nearby.activate(make_neighbours(i0=["i1"]))
    assert [item for item, _ in drawing.generate_named("i0", "unheard of")] == ["i0"]
    # when
    catalogue.put(make_product("i1"))
    drawing.nearby.refresh()
    # then
    assert [item for item, _ in drawing.generate_named("i0")] == ["i1", "i0"]


def test_without_neighbours_and_history_the_popular_ones_are_left() -> None:
    drawing = CandidateHarness()
    drawing.set_popular("i4", "i2", "i7")

    assert drawing.generate_named() == [("i4", "popular"), ("i2", "popular"), ("i7", "popular")]


@pytest.mark.parametrize("candidates_max", [5, 100])
def test_fresh_items_stand_last_and_tell_their_chance(candidates_max: int) -> None:
    # given a shop that was there for long, to which four items came of late; a list of ten explores with two
    drawing = CandidateHarness(candidates_max=candidates_max, explore=0.2)
    late = NOW_MS + 30 * DAY_MS
    for item in ("n0", "n1", "n2", "n3"):
        drawing.catalogue.put(make_product(item, ts_ms=late))
    drawing.fresh.refresh(late + DAY_MS)
    drawing.set_popular(*ITEMS)
    # when many lists are made
    actual = [drawing.generate("i1", seed=seed) for seed in range(400)]
    # then each of them had its chance, and the same seed chooses the same
    assert {drawn.propensity for drawn in actual} == {0.5}
    assert all([SOURCES[why] for why in drawn.sources[-2:]] == ["fresh", "fresh"] for drawn in actual)
    assert {len(drawn.numbers) for drawn in actual} == {min(candidates_max, len(ITEMS) + 2)}
    shown = np.bincount(np.concatenate([drawn.numbers[-2:] for drawn in actual]), minlength=16)[12:]
    assert (abs(shown - 200) < 60).all()
    assert drawing.generate("i1", seed=3).numbers.tolist() == actual[3].numbers.tolist()


def test_a_shop_s_first_items_are_not_fresh_nor_are_old_or_sold_out_ones() -> None:
    # given
    drawing = CandidateHarness(explore=0.2)
    days = {"first": 0.5, "old": 10, "new": 30, "sold out": 30}
    for item, day in days.items():
        drawing.catalogue.put(make_product(item, ts_ms=NOW_MS + int(day * DAY_MS), available=item != "sold out"))
    # when
    drawing.fresh.refresh(NOW_MS + 31 * DAY_MS)
    # then
    assert drawing.catalogue.item_ids(drawing.generate("i1").numbers) == ["i1", "new"]
