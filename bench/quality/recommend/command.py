"""`python -m bench recommend`: quality of the lists that a worker caches, compared with popularity and a library.

The next-item part of a bundle is fitted on the training part; then the worker's own components generate, rank and cache
a list for each case, and the lists are read back from Redis. Of a worker run the fold, candidate generator, list
builder and answer cache, without Kafka; each case is a separate user with its whole history, and nothing is learned
from it. `ranked`: as the bundle's ranker orders them. `candidates`: the same candidates in their own order. `--without`
fits and ranks with a part left out. Exploration is off. Figures: recall@20, NDCG@20 (Online Retail) or MRR@20
(Diginetica), hit rate and NDCG@10 (Amazon Beauty), and the share of items that are on any list.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.quality.recommend.baselines import RankedItems, RecommendBaselines
from bench.quality.recommend.datasets import (
    ListQuality,
    RecommendDataset,
    evaluate_lists,
    read_amazon_beauty,
    read_diginetica,
    read_online_retail,
)
from bench.quality.recommend.next_item_fit import fit
from bench.quality.recommend.offline_recommender import WITHOUT, OfflineRecommender
from bench.results.report import print_json, print_missed, print_progress, print_result
from contract.errors import BadData
from devservers.redis_server import RedisServer
from worker.redis.client import RedisClient

DATASETS: Final[Mapping[str, Callable[[Path], RecommendDataset]]] = {
    "online_retail": read_online_retail,
    "diginetica": read_diginetica,
    "amazon_beauty": read_amazon_beauty,
}
AIMS: Final = {  # of `ranked`: matrix factorisation of implicit, GCE-GNN (Wang et al. 2020), item neighbours
    "online_retail": {"recall_20": 0.0970, "rank_20": 0.0881},
    "diginetica": {"recall_20": 0.5422, "rank_20": 0.1904},
    "amazon_beauty": {"hr_10": 0.0757, "ndcg_10": 0.0470},
}
RIVALS: Final = ("popularity", "cooccurrence", "library", "als")
SEEDS: Final = 3
Report = Callable[[str], None]


class DatasetBench:
    """The rows of one dataset."""

    def __init__(self, data: RecommendDataset, client: RedisClient, folder: Path, report: Report) -> None:
        self._data, self._client, self._folder, self._report = data, client, folder, report

    def measure(self, seeds: int, without: Sequence[str], *, with_rivals: bool) -> dict[str, Any]:
        """Every row: each figure as mean and standard deviation over seeds; rows of a fit have its CPU seconds."""
        rows: dict[str, list[ListQuality]] = {"ranked": [], "candidates": []}
        cpu_s: dict[str, list[float]] = {"ranked": []}
        for seed in range(seeds):
            fitted = fit(self._data, seed, self._report)
            cpu_s["ranked"].append(fitted.cpu_s)
            self._report(f"{self._data.name}, fit of seed {seed}: {fitted.cpu_s} s of CPU time")
            for name, is_ranked in (("ranked", True), ("candidates", False)):
                rows[name].append(self._judge(f"{name}, seed {seed}", fitted.files, is_ranked=is_ranked))
        for part in without:
            fitted, name = fit(self._data, 0, self._report, part), f"without_{part}"
            cpu_s[name], rows[name] = [fitted.cpu_s], [self._judge(name, fitted.files, without=part)]
        if with_rivals:
            rows |= self._measure_rivals(seeds)
        rows["ours"] = rows["ranked"]  # what a worker caches, as earlier figures call it
        return {
            name: summarize_quality(qualities, self._data) | summarize_seconds(cpu_s.get(name))
            for name, qualities in rows.items()
        }

    def _judge(
        self, label: str, files: Mapping[str, bytes], *, is_ranked: bool = True, without: str = ""
    ) -> ListQuality:
        recommender = OfflineRecommender(
            self._data, self._client, self._folder, files, is_ranked=is_ranked, without=without
        )
        quality = evaluate_lists(recommender.make_lists(), self._data)
        self._report(f"{self._data.name}, {label}: {quality}")
        return quality

    def _measure_rivals(self, seeds: int) -> dict[str, list[ListQuality]]:
        """`library`: the best of the library's models. `als`: of its matrix factorisations alone."""
        baselines = RecommendBaselines(self._data)
        rows = {
            "popularity": [self._select_best("popularity", baselines.rank_by_popularity())],
            "cooccurrence": [self._select_best("cooccurrence", baselines.rank_by_cooccurrence())],
        }
        neighbours = self._select_best("library", baselines.rank_by_neighbours())
        if self._data.rank_metric == "mrr":  # a session has too few items for factors, and neighbours have no seed
            return rows | {"library": [neighbours]}
        rows["als"] = [self._select_best(f"als, seed {n}", baselines.rank_by_factors(n)) for n in range(seeds)]
        return rows | {"library": [max(neighbours, factors) for factors in rows["als"]]}

    def _select_best(self, label: str, variants: Mapping[str, RankedItems]) -> ListQuality:
        """The variant with the best recall."""
        qualities = []
        for name, lists in variants.items():
            qualities.append(evaluate_lists(lists, self._data))
            self._report(f"{self._data.name}, {label}, {name}: {qualities[-1]}")
        return max(qualities)


def summarize_quality(qualities: Sequence[ListQuality], data: RecommendDataset) -> dict[str, list[float]]:
    """Mean and standard deviation of each figure."""
    columns = dict(zip(data.measures, zip(*qualities, strict=True), strict=True))
    return {
        name: [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)] for name, values in columns.items()
    }


def summarize_seconds(cpu_s: Sequence[float] | None) -> dict[str, list[float]]:
    return {"fit_cpu_s": [round(float(np.mean(cpu_s)), 1), round(float(np.std(cpu_s)), 1)]} if cpu_s else {}


def find_missed_aims(sets: Mapping[str, Any]) -> Iterator[str]:
    """Aims and rivals that the ranked lists do not reach, as sentences."""
    for name, rows in sets.items():
        measures = [measure for measure in rows["ranked"] if measure not in ("coverage", "fit_cpu_s")]
        for measure in measures:
            ours, noise = rows["ranked"][measure]
            aim = AIMS.get(name, {}).get(measure, 0.0)
            if ours < aim:
                yield f"{name}: {measure} of ranked lists should be at least {aim}. Found {ours}."
            for rival in (rival for rival in ("candidates", *RIVALS) if rival in rows):
                theirs, spread = rows[rival][measure]
                if ours - theirs <= noise + spread:
                    yield f"{name}: {measure} of ranked lists {ours} should be above that of {rival}. Found {theirs}."


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
            bench = DatasetBench(data, client, Path(folder), print_progress)
            figures_by_set[data.name] = bench.measure(
                arguments.seeds, arguments.without, with_rivals=not arguments.no_rivals
            )
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
    parser.add_argument("--data", type=Path, default=data, help="the folder with the datasets")
    parser.add_argument(
        "--sets", nargs="+", choices=sorted(DATASETS), default=list(DATASETS), help="use only these datasets"
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="fits of each dataset")
    parser.add_argument(
        "--without", nargs="*", choices=WITHOUT, default=[], help="also fit and rank with each of these left out"
    )
    parser.add_argument("--no-rivals", action="store_true", help="leave out the rows of other methods")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    return parser.parse_args(argv)
