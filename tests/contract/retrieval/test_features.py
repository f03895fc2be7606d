"""`contract.retrieval`: the features of candidates against a plain computation."""

import numpy as np

from contract.retrieval.features import FEATURES, STRENGTH_MIN, TEMPERATURE, build_features
from contract.retrieval.item_table import ItemTable, Neighbours, no_neighbours
from contract.retrieval.strengths import gather_strengths, select_strongest

ITEMS, DIMENSIONS = 30, 8


def draw_table(rng: np.random.Generator) -> ItemTable:
    vectors = rng.standard_normal((ITEMS, DIMENSIONS)).astype(np.float32)
    return ItemTable(
        neighbours=draw_neighbours(rng, 1.0),
        other_neighbours=draw_neighbours(rng, 0.0),
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        counts=rng.integers(0, 90, ITEMS).astype(np.float32),
        recent_counts=rng.integers(0, 9, ITEMS).astype(np.float32),
    )


def draw_neighbours(rng: np.random.Generator, fading: float) -> Neighbours:
    rows = rng.permuted(np.tile(np.arange(ITEMS), (ITEMS, 1)), axis=1)[:, :5].astype(np.int32)
    rows[rng.random(rows.shape) < 0.2] = -1
    return Neighbours(rows, rng.random(rows.shape).astype(np.float32), fading)


def sum_plainly(history: list[int], neighbours: Neighbours, item: int, items_max: int) -> float:
    distinct = list(dict.fromkeys(row for row in history if row >= 0))[:items_max]
    weights = [
        float(weight) * float(rank) ** -neighbours.fading
        for rank, row in enumerate(distinct, 1)
        for neighbour, weight in zip(neighbours.rows[row], neighbours.weights[row], strict=True)
        if neighbour == item
    ]
    return sum(weights, 0.0)


def test_features_of_candidates_equal_a_plain_computation() -> None:
    # given
    rng = np.random.default_rng(3)
    table = draw_table(rng)
    histories = np.array([[4, 7, 4, -1, 9], [-1, -1, -1, -1, -1], [2, 2, 2, 1, -1]])
    items, starts = np.array([4, 9, 11, -1, 3, 5, 2, 1]), np.array([0, 4, 6, 8])
    users = rng.standard_normal((3, DIMENSIONS)).astype(np.float32)
    # when
    features = build_features(table, histories, users, items, starts)
    # then
    column = {name: features[:, n] for n, name in enumerate(FEATURES)}
    for u, history in enumerate(histories.tolist()):
        known = [row for row in history if row >= 0]
        pairs = range(starts[u], starts[u + 1])
        strengths = [sum_plainly(history, table.neighbours, items[p], 64) if items[p] >= 0 else 0.0 for p in pairs]
        similarities = [float(users[u] @ table.vectors[items[p]]) if items[p] >= 0 else 0.0 for p in pairs]
        log_total = np.log(np.sum(np.exp(np.array(similarities) / TEMPERATURE)))
        for p, strength, similarity in zip(pairs, strengths, similarities, strict=True):
            item, latest = int(items[p]), known[0] if known else -1
            other = sum_plainly(history, table.other_neighbours, item, 64) if item >= 0 else 0.0
            expected = {
                "neighbour": np.log1p(strength / STRENGTH_MIN) / 3,
                "neighbour_relative": np.log1p(strength / max(strengths) / STRENGTH_MIN) / 3 if strength else 0,
                "has_neighbour": strength > 0,
                "neighbour_of_latest": np.log1p(sum_plainly(history, table.neighbours, item, 1) / STRENGTH_MIN) / 3
                if item >= 0
                else 0,
                "other_neighbour": np.log1p(other / STRENGTH_MIN) / 3,
                "similarity": 3 * similarity,
                "similarity_share": (similarity / TEMPERATURE - log_total) / 4 if item >= 0 else 0,
                "similarity_to_latest": 2 * float(table.vectors[item] @ table.vectors[latest])
                if item >= 0 and latest >= 0
                else 0,
                "popularity": np.log1p(table.counts[item]) / 3 if item >= 0 else 0,
                "recent_popularity": np.log1p(table.recent_counts[item]) / 3 if item >= 0 else 0,
                "in_history": item in known,
                "times_in_history": np.log(known.count(item)) if item in known else 0,
                "recency_in_history": 1 / (1 + history.index(item)) if item in known else 0,
                "is_latest": item >= 0 and history[0] == item,
                "history_length": np.log1p(len(known)) / 2,
            }
            for name, value in expected.items():
                np.testing.assert_allclose(column[name][p], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_features_of_users_do_not_depend_on_the_others_of_the_batch() -> None:
    rng = np.random.default_rng(5)
    table = draw_table(rng)
    histories = rng.integers(-1, ITEMS, (4, 70))
    users = rng.standard_normal((4, DIMENSIONS)).astype(np.float32)
    items, starts = rng.integers(0, ITEMS, 40), np.arange(0, 41, 10)
    together = build_features(table, histories, users, items, starts)
    for u in range(4):
        part = slice(10 * u, 10 * u + 10)
        alone = build_features(table, histories[u : u + 1], users[u : u + 1], items[part], np.array([0, 10]))
        np.testing.assert_array_equal(alone, together[part])


def test_an_item_that_has_a_vector_alone_has_only_similarities() -> None:
    # given a table with the vector of one more item
    rng = np.random.default_rng(11)
    known = draw_table(rng)
    vector = rng.standard_normal((1, DIMENSIONS)).astype(np.float32)
    table = known._replace(vectors=np.concatenate([known.vectors, vector]))
    users = rng.standard_normal((1, DIMENSIONS)).astype(np.float32)
    histories, starts = np.array([[4, 7]]), np.array([0, 2])
    # when
    features = build_features(table, histories, users, np.array([ITEMS, 9]), starts)
    # then
    shown = {name: float(value) for name, value in zip(FEATURES, features[0], strict=True) if value}
    assert shown.keys() == {"similarity", "similarity_share", "similarity_to_latest", "history_length"}
    assert np.isclose(shown["similarity"], 3 * users[0] @ vector[0], atol=1e-5)
    alone = build_features(known, histories, users, np.array([9]), np.array([0, 1]))[0]
    same = [n for n, name in enumerate(FEATURES) if "relative" not in name and "share" not in name]
    np.testing.assert_array_equal(features[1, same], alone[same])


def test_nothing_to_describe_gives_no_features() -> None:
    table = ItemTable(
        neighbours=no_neighbours(0),
        other_neighbours=no_neighbours(0),
        vectors=np.zeros((0, 4), np.float32),
        counts=np.zeros(0, np.float32),
        recent_counts=np.zeros(0, np.float32),
    )
    histories, users = np.full((2, 8), -1), np.zeros((2, 4), np.float32)
    assert build_features(table, histories, users, np.zeros(0, np.int64), np.zeros(3, np.int64)).shape == (
        0,
        len(FEATURES),
    )
    unknown = build_features(table, histories, users, np.array([-1]), np.array([0, 1, 1]))
    assert not unknown.any()


def test_the_strongest_neighbours_are_those_of_the_largest_sums() -> None:
    rng = np.random.default_rng(7)
    neighbours = draw_neighbours(rng, 0.5)
    histories = rng.integers(-1, ITEMS, (6, 20))
    excluded, starts = histories[:, 0].copy(), np.arange(7)
    top = select_strongest(histories, tuple(neighbours), 64, excluded, starts, 7)
    every = np.arange(ITEMS)
    for u in range(6):
        strength = gather_strengths(histories[u : u + 1], tuple(neighbours), 64, every, np.array([0, ITEMS]))
        strength[excluded[u] if excluded[u] >= 0 else []] = 0
        expected = np.lexsort((every, -strength))[:7]
        assert top[u].tolist() == np.where(strength[expected] > 0, expected, -1).tolist()
