"""Exact search by vector against a plain computation."""

import numpy as np
import pytest

from worker.retrieval import nearest
from worker.retrieval.nearest import find_nearest

NONE = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def search_plainly(
    users: np.ndarray, vectors: np.ndarray, is_found: np.ndarray, excluded: list[tuple[int, int]], count: int
) -> list[list[int]]:
    answers = []
    for u, user in enumerate(users):
        rows = [row for row in np.flatnonzero(is_found).tolist() if (u, row) not in excluded and user.any()]
        best = sorted(rows, key=lambda row: (-float(vectors[row] @ user), row))[:count]
        answers.append(best + [-1] * (count - len(best)))
    return answers


@pytest.mark.parametrize(("users", "items", "count"), [(1, 5, 9), (3, 7, 7), (150, 100, 10), (70, 41, 1)])
def test_the_nearest_items_equal_those_of_a_plain_computation(
    users: int, items: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given products of a few items, whole numbers so that there are ties, and a user without a vector
    monkeypatch.setattr(nearest, "ITEMS_PER_PRODUCT", 16)
    rng = np.random.default_rng(users)
    vectors = rng.integers(-3, 4, (items, 4)).astype(np.float32)
    user_vectors = rng.integers(-3, 4, (users, 4)).astype(np.float32)
    user_vectors[0] = 0
    is_found = rng.random(items) < 0.8
    excluded = rng.integers(0, users, 50), rng.integers(0, items, 50)
    # when
    penalty = np.where(is_found, 0, -np.inf).astype(np.float32)
    actual = find_nearest(user_vectors, vectors, penalty, excluded, count)
    # then
    pairs = list(zip(excluded[0].tolist(), excluded[1].tolist(), strict=True))
    assert actual.tolist() == search_plainly(user_vectors, vectors, is_found, pairs, count)


def test_a_catalogue_without_items_has_no_nearest_ones() -> None:
    users = np.ones((2, 4), np.float32)

    assert (
        find_nearest(users, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), NONE, 3).tolist() == [[-1] * 3] * 2
    )
