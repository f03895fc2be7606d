"""An index over the vectors of items, for catalogues that an exact product searches too slowly.

It is an inverted file of faiss (Jégou, Douze and Schmid 2011): vectors of half precision in lists around centroids, of
which a search reads the few nearest to a user. The bundle's loading thread builds it, so there is no file that could be
cut short; what it finds is ordered by the vectors themselves, see `worker.retrieval.item_search`. faiss takes 60 MB of
memory, so it is imported by the first catalogue that needs it.
"""

import logging
import time
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.ops import metrics

log = logging.getLogger(__name__)
LISTS: Final = 4  # times the root of the number of items
ROWS_PER_LIST_MIN: Final = 8
ROWS_PER_CENTROID: Final = 32  # that the centroids are learned from: more add seconds and hardly any recall
ITERATIONS: Final = 8
PROBES_MIN: Final = 8
LISTS_PER_PROBE: Final = 8  # at least: reading a quarter of them takes longer than an exact search
QUERIES: Final = 128
QUERY_SHARE: Final = np.float32(2 / 3)  # of one item in a query of the calibration, the rest is of another
NEAREST: Final = 40
RECALL_AIM: Final = 0.98
Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class BrokenIndex(Exception):
    """The index lacks vectors, finds too few of the nearest ones, or rows that do not exist."""


class VectorIndex:
    """Finds most of the nearest rows. `probes`: lists that a search for `NEAREST` rows reads, of `lists`.

    Raises `BrokenIndex` unless it holds every finite vector (M, d) and has a recall of `RECALL_AIM` on vectors between
    items while it reads at most an eighth of the lists. One thread uses it at a time.
    """

    def __init__(self, vectors: Vectors, seed: int = 1) -> None:
        logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which instruction sets it tries
        import faiss

        self._faiss: Any = faiss  # whose own types lack the arguments that its wrappers take
        faiss.omp_set_num_threads(1)  # for this thread: the other cores belong to other workers
        rows = np.flatnonzero(np.isfinite(vectors).all(1))
        self.row_count, self.item_count = len(vectors), len(rows)
        self.lists = max(min(int(LISTS * np.sqrt(len(rows))), len(rows) // ROWS_PER_LIST_MIN), 1)
        self.probes = min(PROBES_MIN, self.lists)
        finite = vectors if len(rows) == len(vectors) else vectors[rows]
        self._index = self._fill(finite, rows, seed)
        self.recall = self._calibrate(finite, rows, seed)

    def select(self, is_available: npt.NDArray[np.bool_]) -> Any:
        """What makes `search` find only these rows (M,)."""
        if is_available.all():
            return None
        return self._faiss.IDSelectorBitmap(np.packbits(is_available, bitorder="little"))

    def search(self, users: Vectors, count: int, selector: Any = None, reach: float = NEAREST) -> Rows:
        """About the nearest rows (U, count) of each user (U, d), best first, -1 after the last.

        `reach`: how many of all rows are nearer than the last one wanted; more than `NEAREST` take more lists.
        Raises `BrokenIndex` for rows that do not exist.
        """
        self._faiss.omp_set_num_threads(1)
        options = self._faiss.SearchParametersIVF(nprobe=min(self._count_probes(reach), self.lists), sel=selector)
        found_rows: Rows = self._index.search(users, count, params=options)[1]
        if found_rows.size and not (found_rows.min() >= -1 and found_rows.max() < self.row_count):
            raise BrokenIndex(f"Rows should be below {self.row_count}. Found {found_rows.min()} to {found_rows.max()}.")
        return found_rows

    def is_faster(self, reach: float) -> bool:
        """Whether a search with this reach takes less time than an exact one."""
        return self._count_probes(reach) <= max(self.lists // LISTS_PER_PROBE, PROBES_MIN)

    def widen(self) -> bool:
        """Read twice as many lists from now on; False where these would be more than an eighth."""
        if 2 * self.probes > max(self.lists // LISTS_PER_PROBE, PROBES_MIN):
            return False
        self.probes *= 2
        return True

    def _count_probes(self, reach: float) -> int:
        return int(np.ceil(self.probes * max(reach / NEAREST, 1)))

    def _fill(self, vectors: Vectors, rows: Rows, seed: int) -> Any:
        faiss = self._faiss
        index = faiss.index_factory(vectors.shape[1], f"IVF{self.lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter, index.cp.seed, index.cp.spherical = ITERATIONS, seed, True
        index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = ROWS_PER_CENTROID, 1
        index.train(vectors)
        index.add_with_ids(vectors, rows)
        if index.ntotal != len(rows):
            raise BrokenIndex(f"The index should hold {len(rows)} vectors. Found {index.ntotal}.")
        return index

    def _calibrate(self, vectors: Vectors, rows: Rows, seed: int) -> float:
        """Widen the search until it has `RECALL_AIM`; the recall."""
        rng = np.random.default_rng(seed)
        first, second = vectors[rng.integers(0, len(vectors), (2, QUERIES))]
        queries = QUERY_SHARE * first + (1 - QUERY_SHARE) * second
        count = min(NEAREST, len(vectors))
        exact = rows[self._faiss.knn(queries, vectors, count, metric=self._faiss.METRIC_INNER_PRODUCT)[1]]
        while (recall := measure_recall(self.search(queries, count), exact)) < RECALL_AIM:
            if not self.widen():
                raise BrokenIndex(
                    f"The recall should be {RECALL_AIM:g} with an eighth of {self.lists} lists. Found {recall:.3f}."
                )
        return recall


def measure_recall(found_rows: Rows, exact: Rows) -> float:
    """The share of the exact rows (U, K; -1: none) that were found too; 1 where there are none."""
    is_item = exact >= 0
    shared = sum(
        len(np.intersect1d(own[has], other)) for own, other, has in zip(exact, found_rows, is_item, strict=True)
    )
    return shared / int(is_item.sum()) if is_item.any() else 1.0


def build_index(vectors: Vectors) -> VectorIndex | None:
    """An index of these vectors; None, counted and logged, where it cannot be built: the search is exact then."""
    began_s = time.monotonic()
    try:
        index = VectorIndex(vectors)
    except Exception:  # whatever is wrong with a library that lists can do without
        count_failure("build")
        return None
    log.info(
        "Indexed %d items in %.1f s: %d of %d lists are read, for a recall of %.3f.",
        index.item_count,
        time.monotonic() - began_s,
        index.probes,
        index.lists,
        index.recall,
    )
    return index


def count_failure(reason: str) -> None:
    """Count and log that the index is not used from now on, with the present exception."""
    metrics.RETRIEVAL_INDEX_FAILURES.labels(reason).inc()
    log.exception("The index of items failed (%s). An exact search takes its place until the next bundle.", reason)
