"""Search by an index against the exact product: recall, masks, and what is done about an index that fails."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from testkit.metrics import read_metric
from tests.checkout import ROOT
from worker.model.vector_index import BrokenIndex, VectorIndex, build_index, measure_recall
from worker.ops import metrics
from worker.retrieval import item_search
from worker.retrieval.item_search import MEASURE_INTERVAL_MS, MEASURED_MIN, ItemSearch, report_searches
from worker.retrieval.nearest import find_nearest

ITEMS, WIDTH, CLUSTERS, USERS, COUNT = 12_000, 32, 120, 96, 40
SEED = 20260301
NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def make_vectors(rng: np.random.Generator) -> np.ndarray:
    """Unit vectors of items in clusters."""
    centres = rng.normal(size=(CLUSTERS, WIDTH)) / np.sqrt(WIDTH)
    vectors = centres[rng.integers(0, CLUSTERS, ITEMS)] + rng.normal(size=(ITEMS, WIDTH)) * 0.6 / np.sqrt(WIDTH)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def make_users(rng: np.random.Generator, vectors: np.ndarray) -> np.ndarray:
    """Users near an item; the first one has no vector."""
    users = vectors[rng.integers(0, ITEMS, USERS)] + rng.normal(size=(USERS, WIDTH)) * 0.5 / np.sqrt(WIDTH)
    users[0] = 0
    return np.asarray(users, np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return make_vectors(np.random.default_rng(SEED))


@pytest.fixture(scope="module")
def users(vectors: np.ndarray) -> np.ndarray:
    return make_users(np.random.default_rng(SEED + 1), vectors)


@pytest.fixture(scope="module")
def built(vectors: np.ndarray) -> VectorIndex:
    index = build_index(vectors)
    assert index
    return index


@pytest.fixture
def index(built: VectorIndex, monkeypatch: pytest.MonkeyPatch) -> VectorIndex:
    """The index with the calibrated number of probes, which tests may change."""
    monkeypatch.setattr(built, "probes", built.probes)
    return built


def make_penalty(is_available: np.ndarray) -> np.ndarray:
    return np.where(is_available, 0, -np.inf).astype(np.float32)


def exclude_nearest(users: np.ndarray, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest items of every user, as those that are not to be found for them."""
    nearest = find_nearest(users, vectors, make_penalty(np.ones(len(vectors), np.bool_)), NONE, count)
    u, k = np.nonzero(nearest >= 0)
    return u, nearest[u, k]


@pytest.mark.parametrize("excluded_count", [0, 30, 300])
@pytest.mark.parametrize("available_share", [1.0, 0.5, 0.05])
def test_the_index_finds_nearly_all_of_the_nearest_items_and_none_that_is_masked(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex, available_share: float, excluded_count: int
) -> None:
    # given items of which some are sold out, and users who do not get those nearest to them
    is_available = np.random.default_rng(SEED + 2).random(ITEMS) < available_share
    excluded = exclude_nearest(users, vectors, excluded_count) if excluded_count else NONE
    search = ItemSearch(vectors, index)
    search.follow(is_available)
    # when
    found_rows = search.find(users, excluded, COUNT)
    # then
    exact = find_nearest(users, vectors, make_penalty(is_available), excluded, COUNT)
    print(f"recall {measure_recall(found_rows, exact):.4f} with seed {SEED}")
    assert measure_recall(found_rows, exact) > 0.95
    assert search.index is index
    assert (found_rows[0] == -1).all()
    assert (found_rows[1:] >= 0).all()
    assert is_available[found_rows[1:]].all()
    pairs = set(zip(excluded[0].tolist(), excluded[1].tolist(), strict=True))
    assert not any((u, row) in pairs for u in range(1, USERS) for row in found_rows[u].tolist())
    # and in the order of the exact products, each item once
    products = np.take_along_axis(users @ vectors.T, found_rows, 1)[1:]
    assert (np.diff(products, axis=1) <= 1e-6).all()
    assert all(len(set(row)) == COUNT for row in found_rows[1:].tolist())


def test_further_vectors_are_searched_exactly_with_what_the_index_finds(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex
) -> None:
    # given items that are newer than the index, near to users, of which some are sold out and some bought
    further = (users[1:] * 0.9).astype(np.float32)
    every = np.concatenate([vectors, further])
    is_available = np.arange(len(every)) % 5 > 0
    excluded = np.arange(1, USERS, 7), ITEMS + np.arange(0, USERS - 1, 7)
    search = ItemSearch(vectors, index)
    search.follow(is_available, every)
    # when
    rows = search.find(users, excluded, COUNT)
    # then
    exact = find_nearest(users, every, make_penalty(is_available), excluded, COUNT)
    is_further = exact >= ITEMS
    assert is_further.any()
    assert [set(row[row >= ITEMS].tolist()) for row in rows] == [set(row[row >= ITEMS].tolist()) for row in exact]
    assert measure_recall(rows, exact) > 0.95


def test_without_an_index_the_search_is_the_exact_one(vectors: np.ndarray, users: np.ndarray) -> None:
    is_available = np.arange(ITEMS) % 3 > 0
    excluded = exclude_nearest(users, vectors, 5)
    search = ItemSearch(vectors)
    search.follow(is_available)

    found_rows = search.find(users, excluded, COUNT)

    assert found_rows.tolist() == find_nearest(users, vectors, make_penalty(is_available), excluded, COUNT).tolist()


def test_users_for_whom_the_index_finds_too_few_are_searched_exactly(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex
) -> None:
    # given fewer available items than a list needs
    is_available = np.zeros(ITEMS, np.bool_)
    is_available[:: ITEMS // 20] = True
    search, before = ItemSearch(vectors, index), read_metric(metrics.RETRIEVAL_EXACT_USERS)
    search.follow(is_available)
    # when, then
    found_rows = search.find(users, NONE, COUNT)
    assert found_rows.tolist() == find_nearest(users, vectors, make_penalty(is_available), NONE, COUNT).tolist()
    assert read_metric(metrics.RETRIEVAL_EXACT_USERS) - before == USERS - 1


def test_a_user_whose_vector_is_not_finite_has_no_nearest_items(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex
) -> None:
    broken = users.copy()
    broken[1, 3], broken[2, 0] = np.nan, np.inf

    found_rows = ItemSearch(vectors, index).find(broken, NONE, COUNT)

    assert (found_rows[:3] == -1).all()
    assert found_rows[3:].tolist() == ItemSearch(vectors, index).find(users, NONE, COUNT)[3:].tolist()


def test_item_vectors_that_are_not_finite_are_left_out(vectors: np.ndarray, users: np.ndarray) -> None:
    # given
    broken = vectors.copy()
    broken[::10, 0] = np.nan
    # when
    index = build_index(broken)
    # then
    assert index
    assert index.item_count == ITEMS - ITEMS // 10
    found_rows = ItemSearch(broken, index).find(users, NONE, COUNT)
    assert (found_rows[1:] >= 0).all()
    assert (found_rows[1:] % 10 > 0).all()


def raise_error(*_: object, **__: object) -> None:
    raise RuntimeError("Error in faiss::IndexIVF")


def test_an_index_that_fails_in_a_search_gives_way_to_the_exact_search(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, before = ItemSearch(vectors, index), read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "search")
    monkeypatch.setattr(index._index, "search", raise_error)

    found_rows = [search.find(users, NONE, COUNT) for _ in range(2)]

    exact = find_nearest(users, vectors, np.zeros(ITEMS, np.float32), NONE, COUNT).tolist()
    assert [rows.tolist() for rows in found_rows] == [exact, exact]
    assert read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "search") - before == 1
    report_searches([search], 0)
    assert read_metric(metrics.RETRIEVAL_INDEX_ITEMS) == 0


def test_rows_that_do_not_exist_give_way_to_the_exact_search(
    vectors: np.ndarray, users: np.ndarray, built: VectorIndex
) -> None:
    # given an index of more vectors than there are
    fewer = vectors[: ITEMS // 2]
    search = ItemSearch(fewer, built)
    # when, then
    found_rows = search.find(users, NONE, COUNT)
    assert search.index is None
    assert found_rows.tolist() == find_nearest(users, fewer, np.zeros(len(fewer), np.float32), NONE, COUNT).tolist()


def lose_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    add = faiss.IndexIVF.add_with_ids
    monkeypatch.setattr(faiss.IndexIVF, "add_with_ids", lambda index, rows, ids: add(index, rows[1:], ids[1:]))


def fail_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss.IndexIVF, "train", raise_error)


def mix_up_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    add = faiss.IndexIVF.add_with_ids
    monkeypatch.setattr(faiss.IndexIVF, "add_with_ids", lambda index, rows, ids: add(index, rows, ids[::-1].copy()))


def hide_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)


@pytest.mark.parametrize("break_build", [lose_vectors, fail_to_train, mix_up_rows, hide_the_library])
def test_an_index_that_is_cut_short_or_wrong_is_not_used_and_counted(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, break_build: Callable[[pytest.MonkeyPatch], None]
) -> None:
    before = read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "build")
    break_build(monkeypatch)

    assert build_index(vectors) is None

    assert read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "build") - before == 1


def test_vectors_without_structure_get_no_index_that_misses_many() -> None:
    # given vectors in all directions of many dimensions, of which half of the lists do not hold the nearest ones
    vectors = np.random.default_rng(SEED).normal(size=(4_000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    with pytest.raises(BrokenIndex, match="recall should be"):
        VectorIndex(vectors)


def test_the_recall_for_real_users_is_measured_shown_and_kept_up(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an index that reads a single list, and an aim that it misses
    monkeypatch.setattr(index, "probes", 1)
    monkeypatch.setattr(item_search, "RECALL_MIN", 0.99)
    monkeypatch.setattr(item_search, "MEASURED_MIN", 8)
    search = ItemSearch(vectors, index)
    recalls = list[float]()
    # when users come and time passes
    for step in range(24):
        search.find(users[1 + 4 * step % 90 :][:4], NONE, COUNT)
        report_searches([search], step * MEASURE_INTERVAL_MS)
        recalls.append(read_metric(metrics.RETRIEVAL_RECALL))
    # then it reads more lists, until the recall is as it should be
    assert index.probes > 1
    assert min(recalls) < 0.9
    assert recalls[-1] > 0.99
    assert search.index is index
    assert read_metric(metrics.RETRIEVAL_INDEX_ITEMS) == ITEMS


def test_an_index_that_cannot_have_the_recall_is_given_up(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an index that may read one list alone
    monkeypatch.setattr(index, "probes", 1)
    monkeypatch.setattr(index, "widen", lambda: False)
    search, before = ItemSearch(vectors, index), read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "recall")
    # when
    for step in range(MEASURED_MIN):
        search.find(users[:5], NONE, COUNT)
        search.measure(step * MEASURE_INTERVAL_MS)
    # then
    assert search.index is None
    assert read_metric(metrics.RETRIEVAL_INDEX_FAILURES, "recall") - before == 1
    report_searches([search], 0)
    assert read_metric(metrics.RETRIEVAL_RECALL) == 1


def test_between_two_measurements_the_interval_passes(
    vectors: np.ndarray, users: np.ndarray, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact_searches = list[int]()
    search = ItemSearch(vectors, index)
    search.find(users, NONE, COUNT)

    def count_users(users: np.ndarray, *rest: Any) -> np.ndarray:
        exact_searches.append(len(users))
        return find_nearest(users, *rest)

    monkeypatch.setattr(item_search, "find_nearest", count_users)

    for now_ms in (0, 1, MEASURE_INTERVAL_MS - 1, MEASURE_INTERVAL_MS):
        search.measure(now_ms)
        search.find(users, NONE, COUNT)

    assert exact_searches == [item_search.MEASURED_USERS] * 2


def test_a_worker_without_a_large_catalogue_does_not_import_the_library() -> None:
    code = "import sys, worker.score_worker, worker.warmup as w; w.warm_up(); assert 'faiss' not in sys.modules"

    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
