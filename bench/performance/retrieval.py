"""`python -m bench retrieval`: the items nearest to users, by the exact product and by the index, by catalogue size.

Vectors are in clusters of 200 items on average, of the width of the default network; users are near one item.
`spread`: the distance of items from the centre of their cluster, 1 for as far as the centre is from the origin. Times
are CPU time of one thread, so that other load on the machine counts little. `recall` is the share of the exact
`COUNT` items that the index found; `index_mb` what building it added to the process.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from bench.results.report import print_progress, print_result
from worker.model.vector_index import VectorIndex, Vectors, measure_recall
from worker.retrieval.item_search import ItemSearch

SIZES: Final = (30_000, 100_000, 300_000, 1_000_000)
WIDTH: Final = 64
PER_CLUSTER: Final = 200
COUNT: Final = 40
USERS: Final = 256
NONE: Final = (np.zeros(0, np.int64), np.zeros(0, np.int64))
Result = TypeVar("Result")


class SizeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue of `items`: seconds to build the index, lists that it reads, and milliseconds for a user."""

    items: int
    build_s: float
    index_mb: float
    lists: int
    probes: int
    exact_ms: float
    index_ms: float
    index_masked_ms: float
    recall: float
    recall_masked: float


class RetrievalFigures(msgspec.Struct, frozen=True, kw_only=True):
    """`masked`: half of the items are sold out."""

    spread: float
    rows: list[SizeRow]


def make_vectors(items: int, spread: float, seed: int) -> tuple[Vectors, Vectors]:
    """Unit vectors (M, d) of items, and vectors (U, d) of users."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((items // PER_CLUSTER, WIDTH), np.float32) / np.float32(WIDTH**0.5)
    vectors = centres[rng.integers(0, len(centres), items)]
    vectors += rng.standard_normal((items, WIDTH), np.float32) * np.float32(spread / WIDTH**0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    users = vectors[rng.integers(0, items, USERS)]
    return vectors, users + rng.standard_normal((USERS, WIDTH), np.float32) * np.float32(0.5 / WIDTH**0.5)


def measure_cpu_s(call: Callable[[], Result]) -> tuple[Result, float]:
    begin_s = time.process_time()
    return call(), time.process_time() - begin_s


def read_resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_size(items: int, spread: float, seed: int) -> SizeRow:
    vectors, users = make_vectors(items, spread, seed)
    exact, before_mb = ItemSearch(vectors), read_resident_mb()
    index, build_s = measure_cpu_s(lambda: VectorIndex(vectors))
    index_mb, search = read_resident_mb() - before_mb, ItemSearch(vectors, index)
    times, recalls = list[float](), list[float]()
    for is_available in (np.ones(items, np.bool_), np.random.default_rng(seed).random(items) < 0.5):
        exact.follow(is_available)
        search.follow(is_available)
        for item_search in (exact, search):
            item_search.find(users[:1], NONE, COUNT)
        expected, exact_s = measure_cpu_s(lambda: exact.find(users, NONE, COUNT))
        found_rows, index_s = measure_cpu_s(lambda: search.find(users, NONE, COUNT))
        times += [1000 * exact_s / USERS, 1000 * index_s / USERS]
        recalls.append(measure_recall(found_rows, expected))
    return SizeRow(
        items=items,
        build_s=round(build_s, 2),
        index_mb=round(index_mb, 1),
        lists=index.lists,
        probes=index.probes,
        exact_ms=round(times[0], 3),
        index_ms=round(times[1], 3),
        index_masked_ms=round(times[3], 3),
        recall=round(recalls[0], 4),
        recall_masked=round(recalls[1], 4),
    )


def main(argv: Sequence[str]) -> int:
    """Measure each size; always 0."""
    arguments = parse(argv)
    rows = list[SizeRow]()
    with threadpool_limits(1):
        for items in arguments.items:
            rows.append(measure_size(items, arguments.spread, arguments.seed))
            print_progress(str(rows[-1]))
    print_result(RetrievalFigures(spread=arguments.spread, rows=rows), as_json=arguments.json)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench retrieval", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--items", type=int, nargs="+", default=list(SIZES), help="sizes of catalogues")
    parser.add_argument("--spread", type=float, default=0.6, help="of a cluster, see above")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
