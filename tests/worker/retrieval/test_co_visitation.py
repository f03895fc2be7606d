"""Co-visited items: what a worker has seen since the bundle was made."""

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


def test_two_items_that_were_visited_together_are_near_each_other(visits: CoVisits) -> None:
    add_visits(visits, (1, 2), (1, 3), (1, 2))

    first, second, third = (neighbours_of(visits, item) for item in (1, 2, 3))

    assert set(first) == {2, 3}
    assert first[2] == 2 * first[3]
    assert set(second) == set(third) == {1}


def test_the_more_visits_there_were_the_surer_is_a_share_of_them(visits: CoVisits) -> None:
    add_visits(visits, (1, 2))
    add_visits(visits, *[(3, 4)] * 1_000)

    assert 0 < neighbours_of(visits, 1)[2] < 0.1 < 0.9 < neighbours_of(visits, 3)[4] < 1


def test_unknown_items_and_repeats_count_for_nothing(visits: CoVisits) -> None:
    add_visits(visits, (-1, 2), (2, -1), (5, 5))

    assert neighbours_of(visits, 2) == neighbours_of(visits, 5) == neighbours_of(visits, -1) == {}


def test_what_is_frequent_stays_though_many_others_pass(visits: CoVisits) -> None:
    # given an item beside which two others are seen again and again, and everything else once
    for n in range(10, 90):
        add_visits(visits, (1, 2), (1, n), (1, 3))
    # then
    actual = neighbours_of(visits, 1)
    assert len(actual) == SLOTS
    assert sorted(actual, key=actual.__getitem__)[-2:] in ([2, 3], [3, 2])


def test_one_batch_of_many_visits_counts_as_many_batches_of_one(visits: CoVisits) -> None:
    pairs = [(1, 2), (2, 3), (1, 3), (1, 2), (3, 1)]
    add_visits(visits, *pairs)
    others = CoVisits(100)
    for pair in pairs:
        add_visits(others, pair)

    assert [neighbours_of(visits, n) for n in (1, 2, 3)] == [pytest.approx(neighbours_of(others, n)) for n in (1, 2, 3)]


def test_a_visit_counts_half_after_a_half_life_and_weights_stay_finite_over_years(visits: CoVisits) -> None:
    # given
    add_visits(visits, (1, 2))
    # when
    add_visits(visits, (1, 3), now_ms=NOW_MS + HALF_LIFE_MS)
    # then
    actual = neighbours_of(visits, 1)
    assert actual[3] == pytest.approx(2 * actual[2])
    # when ten years pass, and an event claims an older time
    add_visits(visits, (1, 4), now_ms=NOW_MS + 500 * HALF_LIFE_MS)
    add_visits(visits, (1, 4), now_ms=NOW_MS)
    # then
    assert max(neighbours_of(visits, 1), key=neighbours_of(visits, 1).__getitem__) == 4
    assert np.isfinite(list(neighbours_of(visits, 1).values())).all()


def test_without_a_bundle_what_was_seen_here_is_what_there_is() -> None:
    # given
    nearby = ItemNeighbours(Catalogue(Encoder(FEATURES)))
    nearby.activate(None)
    nearby.refresh()
    add_visits(nearby.co_visits, (1, 2), (3, 2))
    # when the newest item was 3
    actual = nearby.neighbours_of(np.array([[3, 1, -1]], np.int64))
    # then it speaks louder
    speaks = dict(zip(actual.weights[0].tolist(), actual.numbers[0].tolist(), strict=True))
    assert [speaks[weight] for weight in sorted(speaks, reverse=True)][:2] == [2, 2]
