"""Co-visited items: what a worker has seen since the bundle was made."""

import numpy as np
import pytest

from contract.encoding import Encoder
from tests.worker.shop import FEATURES, NOW_MS
from worker.catalogue import Catalogue
from worker.nearby import HALF_LIFE_MS, PLACES, CoVisits, Nearby


def note(visits: CoVisits, *pairs: tuple[int, int], now_ms: int = NOW_MS) -> None:
    before, after = np.array(pairs, np.int64).T
    visits.note(before, after, now_ms)


def near(visits: CoVisits, item: int) -> dict[int, float]:
    found = visits.of(np.array([[item]], np.int64))
    pairs = zip(found.numbers[0, 0].tolist(), found.weights[0, 0].tolist(), strict=True)
    return {number: weight for number, weight in pairs if number >= 0}


@pytest.fixture
def visits() -> CoVisits:
    return CoVisits(100)


def test_two_items_that_were_visited_together_are_near_each_other(visits: CoVisits) -> None:
    note(visits, (1, 2), (1, 3), (1, 2))

    first, second, third = (near(visits, item) for item in (1, 2, 3))

    assert set(first) == {2, 3}
    assert first[2] == 2 * first[3]
    assert set(second) == set(third) == {1}


def test_the_more_visits_there_were_the_surer_is_a_share_of_them(visits: CoVisits) -> None:
    note(visits, (1, 2))
    note(visits, *[(3, 4)] * 1_000)

    assert 0 < near(visits, 1)[2] < 0.1 < 0.9 < near(visits, 3)[4] < 1


def test_unknown_items_and_repeats_count_for_nothing(visits: CoVisits) -> None:
    note(visits, (-1, 2), (2, -1), (5, 5))

    assert near(visits, 2) == near(visits, 5) == near(visits, -1) == {}


def test_what_is_frequent_stays_though_many_others_pass(visits: CoVisits) -> None:
    # given an item beside which two others are seen again and again, and everything else once
    for n in range(10, 90):
        note(visits, (1, 2), (1, n), (1, 3))
    # then
    found = near(visits, 1)
    assert len(found) == PLACES
    assert sorted(found, key=found.__getitem__)[-2:] in ([2, 3], [3, 2])


def test_one_batch_of_many_visits_counts_as_many_batches_of_one(visits: CoVisits) -> None:
    pairs = [(1, 2), (2, 3), (1, 3), (1, 2), (3, 1)]
    note(visits, *pairs)
    others = CoVisits(100)
    for pair in pairs:
        note(others, pair)

    assert [near(visits, n) for n in (1, 2, 3)] == [pytest.approx(near(others, n)) for n in (1, 2, 3)]


def test_a_visit_counts_half_after_a_half_life_and_weights_stay_finite_over_years(visits: CoVisits) -> None:
    # given
    note(visits, (1, 2))
    # when
    note(visits, (1, 3), now_ms=NOW_MS + HALF_LIFE_MS)
    # then
    found = near(visits, 1)
    assert found[3] == pytest.approx(2 * found[2])
    # when ten years pass, and an event claims an older time
    note(visits, (1, 4), now_ms=NOW_MS + 500 * HALF_LIFE_MS)
    note(visits, (1, 4), now_ms=NOW_MS)
    # then
    assert max(near(visits, 1), key=near(visits, 1).__getitem__) == 4
    assert np.isfinite(list(near(visits, 1).values())).all()


def test_without_a_bundle_what_was_seen_here_is_what_there_is() -> None:
    # given
    nearby = Nearby(Catalogue(Encoder(FEATURES)))
    nearby.serve(None)
    nearby.refresh()
    note(nearby.visits, (1, 2), (3, 2))
    # when the newest item was 3
    found = nearby.of(np.array([[3, 1, -1]], np.int64))
    # then it speaks louder
    speaks = dict(zip(found.weights[0].tolist(), found.numbers[0].tolist(), strict=True))
    assert [speaks[weight] for weight in sorted(speaks, reverse=True)][:2] == [2, 2]
