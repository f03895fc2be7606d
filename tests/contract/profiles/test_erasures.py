"""Erasures: the latest one of a user counts, from both sides of its time."""

import itertools

import pytest

from contract.events.model import Erasure, Product, Search
from contract.profiles.erasures import NO_ERASURES, Erasures

PRODUCT = Product(event_id="p", ts_ms=5, item_id="u1", title="", price=1, currency="EUR", available=True)


def make_erasure(user_id: str, ts_ms: int) -> Erasure:
    return Erasure(event_id=f"g{ts_ms}", ts_ms=ts_ms, user_id=user_id)


def test_the_latest_erasure_covers_events_up_to_its_time_in_any_order() -> None:
    for order in itertools.permutations([make_erasure("u1", 10), make_erasure("u1", 30), make_erasure("u1", 20)]):
        erasures = Erasures(order)
        assert erasures.covers("u1", 30)
        assert not erasures.covers("u1", 31)
        assert not erasures.covers("u2", 30)


def test_add_reports_whether_an_erasure_covers_more() -> None:
    erasures = Erasures()
    assert [erasures.add(make_erasure("u1", ms)) for ms in (10, 10, 9, 11)] == [True, False, False, True]


def test_events_without_a_user_are_never_covered() -> None:
    # given
    erasures = Erasures([make_erasure("u1", 10)])
    # then
    assert erasures.covers_event(Search(event_id="s", ts_ms=10, user_id="u1", query="q"))
    assert not erasures.covers_event(PRODUCT)


def test_erased_ids_are_ascending_hashes_with_seconds() -> None:
    # given
    erasures = Erasures(make_erasure(f"u{n}", n * 1_000 + 999) for n in range(50))
    first = erasures.to_erased_ids()
    # when one user is erased again later
    erasures.add(make_erasure("u7", 90_000))
    # then
    assert (first.idents[:-1] < first.idents[1:]).all()
    assert sorted(first.until_s.tolist()) == list(range(50))
    assert (erasures.to_erased_ids().idents == first.idents).all()
    assert sorted(erasures.to_erased_ids().until_s.tolist()) == [*range(7), *range(8, 50), 90]


def test_the_constant_without_erasures_cannot_be_changed() -> None:
    with pytest.raises(TypeError, match="NO_ERASURES"):
        NO_ERASURES.add(make_erasure("u1", 10))
    assert len(NO_ERASURES) == 0
