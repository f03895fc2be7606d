"""Co-visited items: neighbours that a worker counts itself, in addition to those of the bundle."""

import numpy as np
import pytest

from contract.features.encoder import Encoder
from tests.worker.events import FEATURES, NOW_MS
from worker.catalogue.catalogue import Catalogue
from worker.retrieval.co_visitation import HALF_LIFE_MS, SLOTS, CoVisits, ItemNeighbours


def add_visits(visits: CoVisits, *pairs: tuple[int, int], now_ms: int = NOW_MS) -> None:
    before, after = np.array(pairs, np.int64).T
    visits.record(before, after, now_ms)


def neighbours_of(visits: CoVisits, item: int) -> dict[int, float]:
    neighbours = visits.neighbours_of(np.array([[item]], np.int64))
    pairs = zip(neighbours.numbers[0, 0].tolist(), neighbours.weights[0, 0].tolist(), strict=True)
    return {number: weight for number, weight in pairs if number >= 0}


@pytest.fixture
def visits() -> CoVisits:
    return CoVisits(100)


def test_co_visited_items_are_neighbours_of_each_other(visits: CoVisits) -> None:
    add_visits(visits, (1, 2), (1, 3), (1, 2))

    first, second, third = (neighbours_of(visits, item) for item in (1, 2, 3))

    assert set(first) == {2, 3}
    assert first[2] == 2 * first[3]
    assert set(second) == set(third) == {1}


def test_weights_approach_the_visit_share_with_more_visits(visits: CoVisits) -> None:
    add_visits(visits, (1, 2))
    add_visits(visits, *[(3, 4)] * 1_000)

    assert 0 < neighbours_of(visits, 1)[2] < 0.1 < 0.9 < neighbours_of(visits, 3)[4] < 1


def test_unknown_items_and_repeats_are_ignored(visits: CoVisits) -> None:
    add_visits(visits, (-1, 2), (2, -1), (5, 5))

    assert neighbours_of(visits, 2) == neighbours_of(visits, 5) == neighbours_of(visits, -1) == {}


def test_frequent_neighbours_stay_among_many_rare_ones(visits: CoVisits) -> None:
    # given an item that is visited often with two others, and once with each of many
    for n in range(10, 90):
        add_visits(visits, (1, 2), (1, n), (1, 3))
    # then
    actual = neighbours_of(visits, 1)
    assert len(actual) == SLOTS
    assert sorted(actual, key=actual.__getitem__)[-2:] in ([2, 3], [3, 2])


def test_one_batch_counts_the_same_as_single_visits(visits: CoVisits) -> None:
    pairs = [(1, 2), (2, 3), (1, 3), (1, 2), (3, 1)]
    add_visits(visits, *pairs)
    single = CoVisits(100)
    for pair in pairs:
        add_visits(single, pair)

    assert [neighbours_of(visits, n) for n in (1, 2, 3)] == [pytest.approx(neighbours_of(single, n)) for n in (1, 2, 3)]


def test_visits_decay_by_half_life_and_weights_stay_finite(visits: CoVisits) -> None:
    # given
    add_visits(visits, (1, 2))
    # when
    add_visits(visits, (1, 3), now_ms=NOW_MS + HALF_LIFE_MS)
    # then
    actual = neighbours_of(visits, 1)
    assert actual[3] == pytest.approx(2 * actual[2])
    # when 500 half-lives pass, and an event has an older time
    add_visits(visits, (1, 4), now_ms=NOW_MS + 500 * HALF_LIFE_MS)
    add_visits(visits, (1, 4), now_ms=NOW_MS)
    # then
    assert max(neighbours_of(visits, 1), key=neighbours_of(visits, 1).__getitem__) == 4
    assert np.isfinite(list(neighbours_of(visits, 1).values())).all()


def test_without_a_bundle_co_visits_are_the_only_neighbours() -> None:
    # given
    neighbours = ItemNeighbours(Catalogue(Encoder(FEATURES)))
    neighbours.activate(None)
    neighbours.refresh()
    add_visits(neighbours.co_visits, (1, 2), (3, 2))
    # when
    actual = neighbours.neighbours_of(np.array([[3, 1, -1]], np.int64))
    # then the neighbour of both recent items has the two highest weights
    item_by_weight = dict(zip(actual.weights[0].tolist(), actual.numbers[0].tolist(), strict=True))
    assert [item_by_weight[weight] for weight in sorted(item_by_weight, reverse=True)][:2] == [2, 2]
