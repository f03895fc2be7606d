"""`python -m bench recommend`: how good the lists are that a worker caches, beside popular items and a library.

Neighbours and popular items are exported from the training part; then the worker's own parts draw, rank and cache a
list for each case, and what is judged is read back from Redis. What runs of a worker are profiles and their fold,
candidates, the list maker and the caches, without Kafka between them; a case is a user of its own, and nothing is
learned from it. The bundle has no network, so lists are in the order of candidates: there is no chance in them, and so
no spread. Exploration is off. Recall@20, NDCG@20 (Online Retail) or MRR@20 (Diginetica), and the share of items that
are on any list.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench.recommend_data import Case, Data, Quality, diginetica, judge, online_retail
from bench.recommend_rivals import Lists as Made
from bench.recommend_rivals import Rivals
from contract.bundle import Manifest, publish, read_bundle
from contract.errors import BadData
from contract.events import Click, Product
from contract.features.encoder import Encoder
from contract.messages import read_recommendations
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import fold
from contract.settings import ListSettings, read_settings
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

SETS: Final[Mapping[str, Callable[[Path], Data]]] = {"online_retail": online_retail, "diginetica": diginetica}
LISTS: Final = ListSettings(length=100, candidates=100, explore=0.0)
AT_ONCE: Final = 500
REMEMBERED: Final = 100  # of a history: more than a profile keeps
SEEDS: Final = 3
MEASURES: Final = ("recall_20", "rank_20", "coverage")


class Served:
    """The worker's parts over one shop and one Redis."""

    def __init__(self, data: Data, client: RedisClient, folder: Path) -> None:
        _, features = read_settings()
        self._client, self._encoder = client, Encoder(features)
        self._catalogue = Catalogue(self._encoder)
        for item in data.items:
            self._catalogue.put(product(item))
        files = {"neighbours.npz": to_npz(find_neighbours(data.table())), "golden.npz": to_npz({})}
        publish(folder, Manifest(version=data.name, parent=None, created_ms=0, features={}, tasks=()), files)
        neighbours = Model(read_bundle(folder, data.name), features).neighbours
        nearby, popularity = ItemNeighbours(self._catalogue), Popularity(self._catalogue, LISTS.purchase_value)
        nearby.activate(neighbours)
        popularity.seed(self._catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
        popularity.rank()
        candidates = CandidateGenerator(
            catalogue=self._catalogue,
            neighbours=nearby,
            popularity=popularity,
            fresh_items=FreshItems(self._catalogue, LISTS),
            candidates_max=LISTS.candidates,
        )
        self._maker = ListBuilder(
            lists=LISTS, encoder=self._encoder, catalogue=self._catalogue, candidate_generator=candidates
        )
        self._caches = AnswerCache(client=client, prefix="shop:", lists=LISTS)

    def lists(self, cases: Sequence[Case]) -> Iterator[Sequence[str]]:
        """What Redis has for each case."""
        for begin in range(0, len(cases), AT_ONCE):
            yield from self._some(begin, cases[begin : begin + AT_ONCE])

    def _some(self, first: int, cases: Sequence[Case]) -> Iterator[Sequence[str]]:
        arrivals, wishes = list[Arrival](), list[ListRequest]()
        for number, case in enumerate(cases, first):
            for item, ts_ms in case.history[-REMEMBERED:]:
                click = Click(event_id=f"e{len(arrivals)}", ts_ms=ts_ms, user_id=f"c{number}", item_id=item)
                arrivals.append(Arrival("clicks/0", len(arrivals), click))
            wishes.append(ListRequest(arrivals[-1], frozenset()))
        touches = to_updates(arrivals)
        memory = fold([{} for _ in touches.entities], touches)
        made = self._maker.build(wishes, memory, time.time_ns() // 1_000_000)
        self._caches.write([recommendations for recommendations, _ in made], [])
        keys = [f"shop:rec:c{number}" for number in range(first, first + len(cases))]
        for value in self._client.pipeline([("GET", key) for key in keys]):
            yield [item.item_id for item in read_recommendations(value).items] if value else []


def product(item: str) -> Product:
    return Product(event_id=f"p-{item}", ts_ms=0, item_id=item, title=item, price=1.0, currency="EUR", available=True)


def measured(data: Data, client: RedisClient, folder: Path, told: Callable[[str], None]) -> dict[str, Any]:
    """Every row of one shop: each measure as its mean and standard deviation over seeds."""
    rivals = Rivals(data)
    rows: dict[str, list[Quality]] = {"ours": [judge(Served(data, client, folder).lists(data.cases), data)]}
    told(f"{data.name}, ours: {rows['ours'][0]}")
    ways: dict[str, Callable[[], Mapping[str, Made]]] = {
        "popularity": rivals.popularity,
        "cooccurrence": rivals.cooccurrence,
    }
    for name, way in ways.items():
        rows[name] = [best_of(way(), data, functools.partial(told_of, told, f"{data.name}, {name}"))]
    library = []
    for seed in range(SEEDS):
        found = {**rivals.nearest(), **(rivals.factors(seed) if data.rank == "ndcg" else {})}
        library.append(best_of(found, data, functools.partial(told_of, told, f"{data.name}, library, seed {seed}")))
        if data.rank != "ndcg":
            break  # neighbours know no chance
    rows["library"] = library
    return {name: spread_of(of) for name, of in rows.items()}


def told_of(told: Callable[[str], None], what: str, name: str, quality: Quality) -> None:
    told(f"{what}, {name}: {quality}")


def best_of(variants: Mapping[str, Made], data: Data, told: Callable[[str, Quality], None]) -> Quality:
    """The best by recall."""
    found = []
    for name, lists in variants.items():
        found.append(judge(lists, data))
        told(name, found[-1])
    return max(found)


def spread_of(qualities: Sequence[Quality]) -> dict[str, list[float]]:
    """Mean and standard deviation of each measure."""
    columns = dict(zip(MEASURES, zip(*qualities, strict=True), strict=True))
    return {name: [round(float(np.mean(of)), 4), round(float(np.std(of)), 4)] for name, of in columns.items()}


def missed(sets: Mapping[str, Any]) -> Iterator[str]:
    """Rows that are not behind ours, in words."""
    for name, rows in sets.items():
        for rival in ("popularity", "cooccurrence", "library"):
            for measure in ("recall_20", "rank_20"):
                (ours, noise), (theirs, spread) = rows["ours"][measure], rows[rival][measure]
                if ours - theirs <= noise + spread:
                    yield f"{name}: {measure} of ours {ours} should be above that of {rival}. Found {theirs}."


def main(words: Sequence[str]) -> int:
    """Judge on a Redis of its own; 0, or 2 if the data is not here."""
    arguments = parse(words)
    told = functools.partial(print, file=sys.stderr, flush=True)
    try:
        sets = [SETS[name](arguments.data) for name in arguments.sets]
    except BadData as error:
        told(f"{error} Set SHOPSTREAM_DATA or --data.")
        return 2
    found = {}
    with tempfile.TemporaryDirectory(prefix="shopstream-recommend-") as folder, RedisServer() as server:
        client = RedisClient(url=server.url, timeout_s=60)
        for data in sets:
            told(f"{data.name}: {len(data.taken):,} taken, {len(data.items):,} items, {len(data.cases):,} cases")
            found[data.name] = measured(data, client, Path(folder), told)
            server.flush()
    for sentence in missed(found):
        told(f"Missed: {sentence}")
    print(msgspec.json.encode({"sets": found}).decode() if arguments.json else found)
    return 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench recommend", description=__doc__)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder with online_retail and diginetica")
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--json", action="store_true", help="one line of JSON, the last one")
    return parser.parse_args(words)
