"""Candidates: which items may be on a user's list, and in which order their sources come."""

from collections.abc import Sequence

import numpy as np
import pytest

from contract.features.encoder import Encoder
from contract.hashing import item_hash
from contract.settings.worker import ListSettings
from contract.units import DAY_MS
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.model.item_tables import NeighbourTable
from worker.retrieval.candidate_generator import CandidateGenerator, UserCandidates
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.histories import from_recent
from worker.retrieval.kernels import SOURCES
from worker.retrieval.popularity import Popularity
from worker.rules.hiding import Hidden

ITEMS = [f"i{n}" for n in range(12)]


def make_neighbours(fading: float = 1.0, **neighbours: Sequence[str]) -> NeighbourTable:
    """The neighbours of each item, each with half the weight of the one before."""
    rows = np.full((len(ITEMS), 4), -1, np.int32)
    for item, others in neighbours.items():
        rows[ITEMS.index(item), : len(others)] = [ITEMS.index(other) for other in others]
    weights = np.broadcast_to(np.array([1, 0.5, 0.25, 0.125], np.float32), rows.shape)
    hashes = np.array([item_hash(item) for item in ITEMS], np.uint64)
    return NeighbourTable(hashes, rows, weights, np.zeros(0, np.int32), fading)


class CandidateHarness:
    """Generates candidates from a catalogue of twelve items, i0 to i11."""

    def __init__(self, table: NeighbourTable | None = None, *, candidates_max: int = 100, explore: float = 0.0) -> None:
        self.catalogue = Catalogue(Encoder(FEATURES))
        for item in ITEMS:
            self.catalogue.put(make_product(item))
        self.lists = ListSettings(candidates=candidates_max, explore=explore, length=10)
        self.neighbours, self.popularity = ItemNeighbours(self.catalogue), Popularity(self.catalogue, 5.0)
        self.neighbours.activate(table)
        self.fresh_items = FreshItems(self.catalogue, self.lists)

    def set_popular(self, *items: str) -> None:
        self.popularity.seed(self.catalogue.find(items))
        self.popularity.rank()

    def generate(self, *recent: str, bought: Sequence[str] = (), seed: int = 1) -> UserCandidates:
        generator = CandidateGenerator(
            catalogue=self.catalogue,
            neighbours=self.neighbours,
            popularity=self.popularity,
            fresh_items=self.fresh_items,
            candidates_max=self.lists.candidates,
        )
        hashes = np.array([[item_hash(item) for item in recent]], np.uint64)
        now_ms = np.array([NOW_MS])
        (candidates,) = generator.generate(
            from_recent(hashes, now_ms), Hidden.of_items([self.catalogue.find(bought)]), [seed], now_ms
        )
        return candidates

    def generate_named(self, *recent: str, bought: Sequence[str] = ()) -> list[tuple[str, str]]:
        candidates = self.generate(*recent, bought=bought)
        sources = [SOURCES[code] for code in candidates.sources]
        return list(zip(self.catalogue.item_ids(candidates.numbers), sources, strict=True))


def test_sources_come_in_order_neighbour_recent_category_popular() -> None:
    # given
    harness = CandidateHarness(make_neighbours(i0=["i2", "i3", "i4"], i1=["i5"]))
    harness.catalogue.put(make_product("i0", category="shoes"))
    harness.catalogue.put(make_product("i10", category="shoes"))
    harness.set_popular("i9", "i1", "i10")
    # when
    actual = harness.generate_named("i0", "i1")
    # then the neighbours of the older item have half the weight
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


def test_a_neighbour_of_several_recent_items_comes_first() -> None:
    harness = CandidateHarness(make_neighbours(i0=["i2", "i3"], i1=["i4", "i3"], i5=["i3"]))

    assert [item for item, _ in harness.generate_named("i0", "i1", "i5")][:3] == ["i3", "i2", "i4"]


def test_with_zero_fading_all_recent_items_weigh_the_same() -> None:
    neighbours = {"i0": ["i7", "i2"], "i1": ["i3"], "i5": ["i3"]}

    actual = [
        [item for item, _ in CandidateHarness(make_neighbours(fading, **neighbours)).generate_named("i0", "i1", "i5")]
        for fading in (0, 9)
    ]

    assert [items[:2] for items in actual] == [["i3", "i7"], ["i7", "i2"]]


def test_a_neighbour_that_is_recent_keeps_its_rank_as_recent() -> None:
    harness = CandidateHarness(make_neighbours(i0=["i2", "i0", "i3"]))

    assert harness.generate_named("i0") == [("i2", "neighbour"), ("i0", "recent"), ("i3", "neighbour")]


def test_sold_out_and_just_bought_items_of_any_source_are_excluded() -> None:
    # given an item of each source that is sold out, and one that was bought
    harness = CandidateHarness(make_neighbours(i0=["i2", "i3"], i1=["i5"]))
    harness.catalogue.put(make_product("i2", available=False))
    harness.catalogue.put(make_product("i0", stock=0))
    harness.catalogue.delist("i9")
    harness.set_popular("i9", "i10", "i11")
    # when
    actual = harness.generate_named("i0", "i1", bought=["i5", "i10", "unknown"])
    # then
    assert [item for item, _ in actual] == ["i3", "i1", "i11"]


def test_items_with_stock_or_without_a_stock_count_are_candidates() -> None:
    harness = CandidateHarness()
    harness.catalogue.put(make_product("i1", stock=1))

    assert [item for item, _ in harness.generate_named("i1", "i2")] == ["i1", "i2"]


@pytest.mark.parametrize("candidates_max", [1, 3, 12, 13])
def test_the_number_of_candidates_is_limited(candidates_max: int) -> None:
    harness = CandidateHarness(make_neighbours(i3=["i4"]), candidates_max=candidates_max)
    harness.set_popular(*ITEMS)

    actual = harness.generate("i3").numbers.tolist()

    assert len(actual) == min(candidates_max, len(ITEMS)) == len(set(actual))


def test_a_neighbour_added_later_is_a_candidate_after_a_refresh() -> None:
    # given a catalogue without the neighbour that the bundle names
    harness = CandidateHarness(make_neighbours(i0=["i1"]))
    catalogue = Catalogue(Encoder(FEATURES))
    catalogue.put(make_product("i0"))
    harness.catalogue, harness.neighbours = catalogue, ItemNeighbours(catalogue)
    harness.popularity, harness.fresh_items = Popularity(catalogue, 5.0), FreshItems(catalogue, harness.lists)
    harness.neighbours.activate(make_neighbours(i0=["i1"]))
    assert [item for item, _ in harness.generate_named("i0", "unknown")] == ["i0"]
    # when
    catalogue.put(make_product("i1"))
    harness.neighbours.refresh()
    # then
    assert [item for item, _ in harness.generate_named("i0")] == ["i1", "i0"]


def test_without_history_the_popular_items_are_candidates() -> None:
    harness = CandidateHarness()
    harness.set_popular("i4", "i2", "i7")

    assert harness.generate_named() == [("i4", "popular"), ("i2", "popular"), ("i7", "popular")]


@pytest.mark.parametrize("candidates_max", [5, 100])
def test_fresh_items_come_last_with_their_propensity(candidates_max: int) -> None:
    # given an old catalogue with four new items, of which a list of ten explores two
    harness = CandidateHarness(candidates_max=candidates_max, explore=0.2)
    added_ms = NOW_MS + 30 * DAY_MS
    for item in ("n0", "n1", "n2", "n3"):
        harness.catalogue.put(make_product(item, ts_ms=added_ms))
    harness.fresh_items.refresh(added_ms + DAY_MS)
    harness.set_popular(*ITEMS)
    # when candidates are generated many times
    actual = [harness.generate("i1", seed=seed) for seed in range(400)]
    # then each was sampled with the stated probability, and the same seed samples the same
    assert {candidates.propensity for candidates in actual} == {0.5}
    assert all([SOURCES[code] for code in candidates.sources[-2:]] == ["fresh", "fresh"] for candidates in actual)
    assert {len(candidates.numbers) for candidates in actual} == {min(candidates_max, len(ITEMS) + 2)}
    counts = np.bincount(np.concatenate([candidates.numbers[-2:] for candidates in actual]), minlength=16)[12:]
    assert (abs(counts - 200) < 60).all()
    assert harness.generate("i1", seed=3).numbers.tolist() == actual[3].numbers.tolist()


def test_first_day_old_and_sold_out_items_are_not_fresh() -> None:
    # given
    harness = CandidateHarness(explore=0.2)
    days = {"first": 0.5, "old": 10, "new": 30, "sold out": 30}
    for item, day in days.items():
        harness.catalogue.put(make_product(item, ts_ms=NOW_MS + int(day * DAY_MS), available=item != "sold out"))
    # when
    harness.fresh_items.refresh(NOW_MS + 31 * DAY_MS)
    # then
    assert harness.catalogue.item_ids(harness.generate("i1").numbers) == ["i1", "new"]
