"""Lists by the next-item part of a bundle, of histories and catalogues of any kind."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from contract.bundle import Bundle
from contract.features.encoder import Encoder
from contract.hashing import item_hash
from contract.profiles.histories import CLICK, LatestItems
from contract.settings.worker import ListSettings
from testkit.environment.tiny_bundle import ITEMS, make_manifest
from testkit.environment.tiny_next_item import NEAREST_FIRST, next_item_files
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.retrieval.candidate_generator import CandidateGenerator, UserCandidates
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.kernels import SOURCES
from worker.retrieval.next_item import NextItemSource
from worker.retrieval.popularity import Popularity
from worker.rules.hiding import Hidden

HISTORY_LENGTH = 64


def make_histories(*users: Sequence[str], width: int = HISTORY_LENGTH) -> LatestItems:
    """The histories of users with these items, newest first, as clicks of one time."""
    items = np.zeros((len(users), width), np.uint64)
    for u, history in enumerate(users):
        items[u, : len(history)] = [item_hash(item) for item in history]
    is_item = items > 0
    return LatestItems(items, (is_item * CLICK).astype(np.uint8), (is_item * (NOW_MS // 1000)).astype(np.uint32))


class NextItemHarness:
    """Candidates from a catalogue and a bundle of i0 to i3, whose items have the next two as neighbours."""

    def __init__(self, weights: Mapping[str, float] = NEAREST_FIRST, catalogue: Sequence[str] = ITEMS) -> None:
        self.model = Model(Bundle(make_manifest("v1"), next_item_files(weights)), FEATURES)
        self.catalogue = Catalogue(Encoder(FEATURES))
        for item in catalogue:
            self.catalogue.put(make_product(item))
        assert self.model.next_item
        self.neighbours, self.popularity = ItemNeighbours(self.catalogue), Popularity(self.catalogue, 5.0)
        self.source = NextItemSource(self.model.next_item, self.model.neighbours, self.catalogue)

    def set_popular(self, *items: str) -> None:
        self.popularity.seed(self.catalogue.find(items))
        self.popularity.rank()

    def generate(
        self, *users: Sequence[str], bought: Sequence[str] = (), width: int = HISTORY_LENGTH
    ) -> list[UserCandidates]:
        lists = ListSettings(explore=0.0)
        generator = CandidateGenerator(
            catalogue=self.catalogue,
            neighbours=self.neighbours,
            popularity=self.popularity,
            fresh_items=FreshItems(self.catalogue, lists),
            candidates_max=lists.candidates,
            length=lists.length,
            next_item=self.source,
        )
        count = len(users)
        excluded = Hidden.of_items([self.catalogue.find(bought)] * count)
        return generator.generate(make_histories(*users, width=width), excluded, range(count), np.full(count, NOW_MS))

    def rank(self, *history: str, bought: Sequence[str] = ()) -> list[tuple[str, str]]:
        """The items of a user with this history, best first, and their sources."""
        (candidates,) = self.generate(history, bought=bought)
        assert candidates.scores is not None
        order = np.argsort(-candidates.scores, kind="stable")
        items = self.catalogue.item_ids(candidates.numbers[order])
        return list(zip(items, [SOURCES[code] for code in candidates.sources[order]], strict=True))


def test_candidates_are_neighbours_own_and_nearest_items_in_the_order_of_the_ranker() -> None:
    # given a ranker that looks at the similarity alone: that of own items is above 0
    assert NextItemHarness().rank("i1", "i0") == [
        ("i1", "recent"),
        ("i0", "recent"),
        ("i2", "neighbour"),
        ("i3", "neighbour"),
    ]
    # and one that looks at the counts of the bundle
    assert [item for item, _ in NextItemHarness({"popularity": 1.0}).rank("i1", "i0")] == ["i3", "i2", "i1", "i0"]


def test_a_history_of_one_item_brings_its_neighbours_and_itself() -> None:
    assert NextItemHarness().rank("i2") == [
        ("i2", "recent"),
        ("i0", "neighbour"),
        ("i3", "neighbour"),
        ("i1", "vector"),
    ]


@pytest.mark.parametrize("times", [2, 64, 500])
def test_an_item_that_fills_the_history_counts_once_as_a_source(times: int) -> None:
    harness = NextItemHarness()

    (once,), (often,) = harness.generate(["i2"]), harness.generate(["i2"] * times, width=500)

    assert often.numbers.tolist() == once.numbers.tolist()
    assert often.scores is not None
    assert once.scores is not None
    np.testing.assert_allclose(often.scores, once.scores, atol=1e-6)


def test_items_of_a_history_that_no_longer_exist_still_say_what_the_user_likes() -> None:
    # given a catalogue without i0 and i1, whose neighbours and vectors the bundle has
    harness = NextItemHarness({"neighbour": 1.0}, catalogue=["i2", "i3"])
    harness.set_popular("i3", "i2")
    # when, then: i2 is the neighbour of both, i3 of the older one alone
    assert harness.rank("i0", "i1") == [("i2", "neighbour"), ("i3", "neighbour")]


def test_a_history_of_items_that_nobody_knows_brings_popular_items() -> None:
    harness = NextItemHarness()
    harness.set_popular("i3", "i1")

    assert harness.rank("gone", "gone too") == [("i3", "popular"), ("i1", "popular")]


def test_a_user_without_a_history_gets_popular_items() -> None:
    harness = NextItemHarness()
    harness.set_popular("i3", "i1")

    assert harness.rank() == [("i3", "popular"), ("i1", "popular")]


def test_after_a_wholly_changed_catalogue_co_visits_and_popular_items_keep_their_order() -> None:
    # given a catalogue that has no item of the bundle, and a user who went on from an old item to a new one
    harness = NextItemHarness(catalogue=["n0", "n1", "n2", "n3"])
    numbers = harness.catalogue.find(["n1", "n3"])
    harness.neighbours.co_visits.record(numbers[:1], numbers[1:], NOW_MS)
    harness.set_popular("n2", "n0")
    # when, then
    assert harness.rank("n1", "i0") == [("n3", "neighbour"), ("n1", "recent"), ("n2", "popular"), ("n0", "popular")]


def test_the_catalogue_may_change_between_two_lists() -> None:
    # given a list, then a new item of the bundle, another sold out, and a third delisted
    harness = NextItemHarness(catalogue=["i0", "i1", "i2"])
    assert [item for item, _ in harness.rank("i0")] == ["i0", "i1", "i2"]
    harness.catalogue.put(make_product("i3"))
    harness.catalogue.put(make_product("i1", stock=0))
    harness.catalogue.delist("i2")
    # when the change is too new for the search, then no item that is out of stock is a candidate
    assert [item for item, _ in harness.rank("i0")] == ["i0"]
    # when it was refreshed
    harness.source.refresh()
    assert harness.rank("i0") == [("i0", "recent"), ("i3", "vector")]


def test_bought_and_unavailable_items_are_no_candidates_of_any_source() -> None:
    harness = NextItemHarness()
    harness.catalogue.put(make_product("i3", available=False))
    harness.source.refresh()
    harness.set_popular(*ITEMS)

    assert [item for item, _ in harness.rank("i0", bought=["i0", "i1", "ghost"])] == ["i2"]


def test_users_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(5)
    harness = NextItemHarness({"neighbour": 1.0, "similarity": 1.0, "recency_in_history": 2.0})
    harness.set_popular("i3", "i1")
    users = [[f"i{n}" for n in rng.integers(0, 6, rng.integers(0, 9))] for _ in range(40)]

    together, alone = harness.generate(*users), [harness.generate(user)[0] for user in users]

    for mine, expected in zip(together, alone, strict=True):
        assert mine.numbers.tolist() == expected.numbers.tolist()
        assert mine.sources.tolist() == expected.sources.tolist()
        assert mine.scores is not None
        assert expected.scores is not None
        np.testing.assert_allclose(mine.scores, expected.scores, atol=1e-6)


def test_scores_that_are_not_finite_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    harness = NextItemHarness()
    monkeypatch.setattr(
        harness.source.model, "rank", lambda features: np.array([np.nan, 1, np.inf, 2], np.float32)[: len(features)]
    )

    assert [item for item, _ in harness.rank("i0")] == ["i3", "i2", "i1", "i0"]
