"""The worker's list components over one dataset, one bundle and one Redis: lists as a worker would cache them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.quality.recommend.datasets import Case, RecommendDataset
from contract.bundle import Manifest, publish, read_bundle
from contract.events.model import Click, Product
from contract.features.encoder import Encoder
from contract.hashing import item_hash
from contract.messages import read_recommendations
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.guest_items import without_guests
from contract.profiles.histories import CLICK, ORDER, LatestItems
from contract.profiles.store import fold
from contract.retrieval.features import HISTORY_MAX
from contract.settings.reading import read_settings
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.model.item_tables import NeighbourTable
from worker.model.next_item_model import NextItemModel
from worker.model.onnx_model import Model
from worker.recommend.list_builder import ListBuilder, ListRequest
from worker.redis.client import RedisClient
from worker.retrieval.candidate_generator import CandidateGenerator, UserCandidates
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.histories import BatchHistories
from worker.retrieval.next_item import NextItemSource, RetrievedItems
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

LISTS: Final = ListSettings(length=20, candidates=300, explore=0.0)
CHUNK_CASES: Final = 500
ACTIONS: Final = {"click": CLICK, "order": ORDER}
WITHOUT: Final = ("vector", "neighbours", "popularity", "history", "sequence")
RECENT_ITEMS: Final = 8  # that a profile has
NUMBER_AT: Final = 1  # where the number of a case begins in its user id


class CaseHistories:
    """The whole histories of test cases, as the worker reads those of users; the user of case 7 is c7."""

    def __init__(self, data: RecommendDataset, length: int) -> None:
        self._data, self._length = data, length
        self._hashes: dict[str, int] = {item: item_hash(item) for item in data.items}

    def read(self, users: Sequence[str]) -> LatestItems:
        """The latest items of these users, newest first."""
        shape = len(users), HISTORY_MAX
        histories = LatestItems(np.zeros(shape, np.uint64), np.zeros(shape, np.uint8), np.zeros(shape, np.uint32))
        action = ACTIONS[self._data.action]
        for row, user in enumerate(users):
            latest = self._data.cases[int(user[NUMBER_AT:])].history[-self._length :][::-1]
            histories.items[row, : len(latest)] = [self._hashes.get(item) or item_hash(item) for item, _ in latest]
            histories.actions[row, : len(latest)] = action
            histories.seen_s[row, : len(latest)] = [ts_ms // 1000 for _, ts_ms in latest]
        return histories


class UnrankedGenerator(CandidateGenerator):
    """The same candidates in their own order, as if the bundle had no ranker."""

    def generate(self, *arguments: Any) -> list[UserCandidates]:
        """Candidates without scores."""
        return [candidates._replace(scores=None) for candidates in super().generate(*arguments)]


class ReducedSource(NextItemSource):
    """A next-item part of which a source of candidates may be left out."""

    def __init__(self, model: NextItemModel, neighbours: NeighbourTable, catalogue: Catalogue, without: str) -> None:
        super().__init__(model, neighbours, catalogue)
        self._without = without

    def retrieve(self, *arguments: Any) -> RetrievedItems:
        """Items of the sources that are left."""
        retrieved = super().retrieve(*arguments)
        if self._without == "vector":
            retrieved.nearest[:] = -1
        elif self._without == "neighbours":
            retrieved.neighbours.numbers[:] = -1
            retrieved.other_neighbours[:] = -1
        return retrieved


class OfflineRecommender:
    """Makes the lists of a dataset's cases with a bundle of these files."""

    def __init__(
        self,
        data: RecommendDataset,
        client: RedisClient,
        folder: Path,
        files: Mapping[str, bytes],
        *,
        is_ranked: bool = True,
        without: str = "",
    ) -> None:
        """`is_ranked`: else candidates stay in their own order. `without`: one of `WITHOUT`, that is left out."""
        _, features = read_settings()
        self._client, self._data, self._catalogue = client, data, Catalogue(Encoder(features))
        for item in data.items:
            self._catalogue.put(make_product(item))
        version = f"{data.name}-{time.monotonic_ns()}"
        publish(folder, Manifest(version=version, parent=None, created_ms=0, features={}, tasks=()), files)
        self.model = Model(read_bundle(folder, version), features)
        neighbours, item_neighbours = self.model.neighbours, ItemNeighbours(self._catalogue)
        popularity = Popularity(self._catalogue, LISTS.purchase_value)
        item_neighbours.activate(neighbours)
        popularity.seed(self._catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
        popularity.rank()
        next_item = self.model.next_item
        make_generator = CandidateGenerator if is_ranked else UnrankedGenerator
        generator = make_generator(
            catalogue=self._catalogue,
            neighbours=item_neighbours,
            popularity=popularity,
            fresh_items=FreshItems(self._catalogue, LISTS),
            candidates_max=LISTS.candidates,
            length=LISTS.length,
            next_item=ReducedSource(next_item, neighbours, self._catalogue, without) if next_item else None,
        )
        self._list_builder = ListBuilder(
            lists=LISTS,
            encoder=Encoder(features),
            catalogue=self._catalogue,
            candidate_generator=generator,
        )
        self._histories = CaseHistories(data, RECENT_ITEMS if without == "history" else HISTORY_MAX)
        self._answer_cache = AnswerCache(client=client, prefix="shop:", lists=LISTS)

    def make_lists(self) -> Iterator[Sequence[str]]:
        """The cached list of each case."""
        for begin in range(0, len(self._data.cases), CHUNK_CASES):
            yield from self._make_chunk(begin, self._data.cases[begin : begin + CHUNK_CASES])

    def _make_chunk(self, first_number: int, cases: Sequence[Case]) -> Iterator[Sequence[str]]:
        arrivals, requests = list[Arrival](), list[ListRequest]()
        for number, case in enumerate(cases, first_number):
            item, ts_ms = case.history[-1]
            click = Click(event_id=f"e{number}", ts_ms=ts_ms, user_id=f"c{number}", item_id=item)
            arrivals.append(Arrival("clicks/0", len(arrivals), click))
            requests.append(ListRequest(arrivals[-1], case.excluded))
        updates = to_updates(arrivals)
        folded = fold([{} for _ in updates.entities], updates)
        users = [request.event.user_id for request in requests]
        known = without_guests(self._histories.read(users))
        histories = BatchHistories({user: row for row, user in enumerate(users)}, known)
        self._answer_cache.write(self._list_builder.build(requests, folded, time.time_ns() // 1_000_000, histories))
        keys = [f"shop:rec:c{number}" for number in range(first_number, first_number + len(cases))]
        for value in self._client.pipeline([("GET", key) for key in keys]):
            yield [item.item_id for item in read_recommendations(value).items] if value else []


def make_product(item: str) -> Product:
    return Product(event_id=f"p-{item}", ts_ms=0, item_id=item, title=item, price=1.0, currency="EUR", available=True)
