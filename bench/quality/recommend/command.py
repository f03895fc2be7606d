"""`python -m bench recommend`: quality of the lists that a worker caches, compared with popularity and a library.

Neighbours and popular items are exported from the training part; then the worker's own components generate, rank and
cache a list for each case, and the lists are read back from Redis. Of a worker run the fold, candidate generator, list
builder and answer cache, without Kafka; each case is a separate user, and nothing is learned from it. The bundle has no
network, so lists are in candidate order, without randomness. Exploration is off. Figures: Recall@20, NDCG@20 (Online
Retail) or MRR@20 (Diginetica), and the share of items that are on any list.
"""

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.quality.recommend.baselines import RankedItems, RecommendBaselines
from bench.quality.recommend.datasets import (
    Case,
    ListQuality,
    RecommendDataset,
    evaluate_lists,
    read_diginetica,
    read_online_retail,
)
from bench.results.report import print_json, print_missed, print_progress, print_result
from contract.bundle import Manifest, publish, read_bundle
from contract.errors import BadData
from contract.events.model import Click, Product
from contract.features.encoder import Encoder
from contract.messages import read_recommendations
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import fold
from contract.settings.reading import read_settings
from contract.settings.worker import ListSettings
from devservers.redis_server import RedisServer
from export.exporter import to_npz
from export.neighbours import find_neighbours
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.recommend.list_builder import ListBuilder, ListRequest
from worker.redis.client import RedisClient
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

DATASETS: Final[Mapping[str, Callable[[Path], RecommendDataset]]] = {
    "online_retail": read_online_retail,
    "diginetica": read_diginetica,
}
LISTS: Final = ListSettings(length=100, candidates=100, explore=0.0)
CHUNK_CASES: Final = 500
HISTORY_MAX: Final = 100  # events of a history; more than a profile keeps
SEEDS: Final = 3
MEASURES: Final = ("recall_20", "rank_20", "coverage")


class OfflineRecommender:
    """The worker's components on one dataset and one Redis."""

    def __init__(self, data: RecommendDataset, client: RedisClient, folder: Path) -> None:
        _, features = read_settings()
        self._client, self._encoder = client, Encoder(features)
        self._catalogue = Catalogue(self._encoder)
        for item in data.items:
            self._catalogue.put(make_product(item))
        files = {"neighbours.npz": to_npz(find_neighbours(data.to_table())), "golden.npz": to_npz({})}
        publish(folder, Manifest(version=data.name, parent=None, created_ms=0, features={}, tasks=()), files)
        neighbours = Model(read_bundle(folder, data.name), features).neighbours
        item_neighbours, popularity = ItemNeighbours(self._catalogue), Popularity(self._catalogue, LISTS.purchase_value)
        item_neighbours.activate(neighbours)
        popularity.seed(self._catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
        popularity.rank()
        candidates = CandidateGenerator(
            catalogue=self._catalogue,
            neighbours=item_neighbours,
            popularity=popularity,
            fresh_items=FreshItems(self._catalogue, LISTS),
            candidates_max=LISTS.candidates,
        )
        self._list_builder = ListBuilder(
            lists=LISTS, encoder=self._encoder, catalogue=self._catalogue, candidate_generator=candidates
        )
        self._answer_cache = AnswerCache(client=client, prefix="shop:", lists=LISTS)

    def make_lists(self, cases: Sequence[Case]) -> Iterator[Sequence[str]]:
        """The cached list of each case."""
        for begin in range(0, len(cases), CHUNK_CASES):
            yield from self._make_chunk(begin, cases[begin : begin + CHUNK_CASES])

    def _make_chunk(self, first_number: int, cases: Sequence[Case]) -> Iterator[Sequence[str]]:
        arrivals, requests = list[Arrival](), list[ListRequest]()
        for number, case in enumerate(cases, first_number):
            for item, ts_ms in case.history[-HISTORY_MAX:]:
                click = Click(event_id=f"e{len(arrivals)}", ts_ms=ts_ms, user_id=f"c{number}", item_id=item)
                arrivals.append(Arrival("clicks/0", len(arrivals), click))
            requests.append(ListRequest(arrivals[-1], frozenset()))
        updates = to_updates(arrivals)
        folded = fold([{} for _ in updates.entities], updates)
        ranked_lists = self._list_builder.build(requests, folded, time.time_ns() // 1_000_000)
        self._answer_cache.write(ranked_lists)
        keys = [f"shop:rec:c{number}" for number in range(first_number, first_number + len(cases))]
        for value in self._client.pipeline([("GET", key) for key in keys]):
            yield [item.item_id for item in read_recommendations(value).items] if value else []


def make_product(item: str) -> Product:
    return Product(event_id=f"p-{item}", ts_ms=0, item_id=item, title=item, price=1.0, currency="EUR", available=True)


def measure_dataset(
    data: RecommendDataset, client: RedisClient, folder: Path, report: Callable[[str], None]
) -> dict[str, Any]:
    """Every row of one dataset: each figure as mean and standard deviation over seeds."""
    baselines = RecommendBaselines(data)
    rows: dict[str, list[ListQuality]] = {
        "ours": [evaluate_lists(OfflineRecommender(data, client, folder).make_lists(data.cases), data)]
    }
    report(f"{data.name}, ours: {rows['ours'][0]}")
    variants_by_name: dict[str, Callable[[], Mapping[str, RankedItems]]] = {
        "popularity": baselines.rank_by_popularity,
        "cooccurrence": baselines.rank_by_cooccurrence,
    }
    for name, make_variants in variants_by_name.items():
        rows[name] = [
            select_best(make_variants(), data, functools.partial(report_variant, report, f"{data.name}, {name}"))
        ]
    library = []
    for seed in range(SEEDS):
        variants = {
            **baselines.rank_by_neighbours(),
            **(baselines.rank_by_factors(seed) if data.rank_metric == "ndcg" else {}),
        }
        library.append(
            select_best(variants, data, functools.partial(report_variant, report, f"{data.name}, library, seed {seed}"))
        )
        if data.rank_metric != "ndcg":
            break  # neighbours are deterministic
    rows["library"] = library
    return {name: summarize_quality(qualities) for name, qualities in rows.items()}


def report_variant(report: Callable[[str], None], label: str, name: str, quality: ListQuality) -> None:
    report(f"{label}, {name}: {quality}")


def select_best(
    variants: Mapping[str, RankedItems], data: RecommendDataset, report: Callable[[str, ListQuality], None]
) -> ListQuality:
    """The variant with the best recall."""
    qualities = []
    for name, lists in variants.items():
        qualities.append(evaluate_lists(lists, data))
        report(name, qualities[-1])
    return max(qualities)


def summarize_quality(qualities: Sequence[ListQuality]) -> dict[str, list[float]]:
    """Mean and standard deviation of each figure."""
    columns = dict(zip(MEASURES, zip(*qualities, strict=True), strict=True))
    return {
        name: [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)] for name, values in columns.items()
    }


def find_missed_aims(sets: Mapping[str, Any]) -> Iterator[str]:
    """Baselines that ours does not beat, as sentences."""
    for name, rows in sets.items():
        for baseline in ("popularity", "cooccurrence", "library"):
            for measure in ("recall_20", "rank_20"):
                (ours, noise), (theirs, spread) = rows["ours"][measure], rows[baseline][measure]
                if ours - theirs <= noise + spread:
                    yield f"{name}: {measure} of ours {ours} should be above that of {baseline}. Found {theirs}."


def main(argv: Sequence[str]) -> int:
    """Measure on its own Redis. 0: done; 2: the data is missing."""
    arguments = parse(argv)
    try:
        datasets = [DATASETS[name](arguments.data) for name in arguments.sets]
    except BadData as error:
        print_progress(f"{error} Set SHOPSTREAM_DATA or --data.")
        return 2
    figures_by_set = {}
    with tempfile.TemporaryDirectory(prefix="shopstream-recommend-") as folder, RedisServer() as server:
        client = RedisClient(url=server.url, timeout_s=60)
        for data in datasets:
            counts = f"{len(data.interactions):,} interactions, {len(data.items):,} items, {len(data.cases):,} cases"
            print_progress(f"{data.name}: {counts}")
            figures_by_set[data.name] = measure_dataset(data, client, Path(folder), print_progress)
            server.flush()
    print_missed(find_missed_aims(figures_by_set))
    if arguments.json:
        print_json({"sets": figures_by_set})
    else:
        print_result(figures_by_set, as_json=False)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench recommend", description=__doc__)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder with online_retail and diginetica")
    parser.add_argument(
        "--sets", nargs="+", choices=sorted(DATASETS), default=list(DATASETS), help="use only these datasets"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    return parser.parse_args(argv)
