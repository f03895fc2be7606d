"""Lists that one core makes: what a worker does for lists alone, over profiles in Redis.

A round reads and folds the profiles of some users, makes their lists, encodes the records and writes the lists to
Redis. Its CPU time is that of the thread, so that other load on the machine counts little; the time of Redis itself and
of Kafka is not in it.
"""

import statistics
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import msgspec

from bench.performance.load.workload import EVENTS_PER_S, LoadGenerator, generate_products
from bench.performance.measure.fold_runner import FoldRunner
from contract.bundle import current_version, read_bundle
from contract.events.model import Product
from contract.features.encoder import Encoder
from contract.graphs import RECOMMEND
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import fold
from contract.settings.reading import Settings, read_settings
from contract.settings.servers import RedisSettings
from worker.catalogue.catalogue import Catalogue
from worker.model.experiment import ActiveModels
from worker.model.onnx_model import Model
from worker.recommend.list_builder import ListBuilder, ListRequest
from worker.records.answers import LIST
from worker.redis.cluster import connect
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.popularity import Popularity
from worker.scoring.results import BatchResults
from worker.state.resources import open_stores

USERS: Final = 512
CLICKS_PER_USER: Final = 8
PREFIX: Final = "speed:"
ROUNDS: Final = 40
WARMUP_ROUNDS: Final = 5
ITEMS_MAX: Final = 10_000
DECODE_PRODUCT: Final = msgspec.json.Decoder(Product).decode


class ListSpeed:
    """Users with profiles in Redis, and a catalogue with a model."""

    def __init__(self, *, redis_url: str, bundles: Path, seed: int) -> None:
        settings, features = read_settings()
        redis = RedisSettings(url=redis_url, prefix=PREFIX)
        self._settings = settings.model_copy(update={"redis": redis})
        self._client, self._encoder = connect(redis), Encoder(features)
        self._model = Model(read_bundle(bundles, current_version(bundles) or ""), features)
        begin_ms = time.time_ns() // 1_000_000
        self._catalogue = Catalogue(self._encoder, ITEMS_MAX)
        for record in generate_products(begin_ms):
            self._catalogue.put(DECODE_PRODUCT(record.value))
        self._catalogue.activate(self._model)
        load = LoadGenerator(seed, begin_ms - USERS * CLICKS_PER_USER * 1000 // EVENTS_PER_S)
        clicks = [load.draw_click(number % USERS) for number in range(USERS * CLICKS_PER_USER)]
        arrivals = [Arrival("clicks/0", offset, click, "shop.clicks", 0) for offset, click in enumerate(clicks)]
        FoldRunner(client=self._client, prefix=PREFIX).process_batch(arrivals, ["user"])
        self._requests = [ListRequest(arrival, frozenset()) for arrival in arrivals[-USERS:]]
        self._now_ms = clicks[-1].ts_ms

    def close(self) -> None:
        self._client.close()

    def measure(self, candidates: int, users: int) -> float:
        """Lists per second of CPU time at this number of candidates, for this number of users at once."""
        lists = self._settings.lists.model_copy(update={"candidates": candidates})
        settings = self._settings.model_copy(update={"lists": lists})
        builder, stores = self._make_builder(settings), open_stores(settings, [LIST], self._client)
        requests = cycle(self._requests)

        def run_round(batch: Sequence[ListRequest]) -> float:
            begin_s = time.thread_time()
            updates = to_updates([], [f"user:{request.event.user_id}" for request in batch])
            memory = fold(stores.profiles.read(updates.entities), updates)
            results = BatchResults(builder.build(batch, memory, self._now_ms))
            results.to_records(settings.topics)
            stores.answer_cache.write(results.answers)
            if len(results.answers) != users:
                raise RuntimeError(f"Each of {users} users should get a list. Found {len(results.answers)} lists.")
            return time.thread_time() - begin_s

        rounds_s = [run_round(list(islice(requests, users))) for _ in range(WARMUP_ROUNDS + ROUNDS)]
        return round(users / statistics.median(rounds_s[WARMUP_ROUNDS:]), 1)

    def _make_builder(self, settings: Settings) -> ListBuilder:
        neighbours, popularity = ItemNeighbours(self._catalogue), Popularity(self._catalogue, 1.0)
        table = self._model.neighbours
        neighbours.activate(table)
        popularity.seed(self._catalogue.find_hashes(table.hashes[table.popular]))
        popularity.rank()
        generator = CandidateGenerator(
            catalogue=self._catalogue,
            neighbours=neighbours,
            popularity=popularity,
            fresh_items=FreshItems(self._catalogue, settings.lists),
            candidates_max=settings.lists.candidates,
        )
        return ListBuilder(
            lists=settings.lists,
            encoder=self._encoder,
            catalogue=self._catalogue,
            candidate_generator=generator,
            models=ActiveModels(self._model).supporting(RECOMMEND.name),
        )
