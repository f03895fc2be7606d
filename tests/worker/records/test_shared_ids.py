"""The most shared id of each kind: exported from a few users on, and warned of once."""

from collections.abc import Iterator

import pytest

from contract.events.model import Erasure, Event
from contract.events.reading import decode
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from tests.contract.test_events import encode_event
from worker.ops import metrics
from worker.records.shared_ids import BATCH_MAX, SharedIds


def make_orders(count: int, *, users: int, **fields: object) -> list[Arrival]:
    return [Arrival("orders/0", n, make_order(f"u{n % users}", n, fields)) for n in range(count)]


def make_order(user: str, number: int, fields: dict[str, object]) -> Event:
    return decode("orders", encode_event("orders", user_id=user, event_id=f"o{number}", **fields))


def read_exported() -> dict[tuple[str, str], float]:
    (family,) = metrics.MOST_SHARED_ID_USERS.collect()
    return {(sample.labels["kind"], sample.labels["id"]): sample.value for sample in family.samples}


@pytest.fixture(autouse=True)
def _no_series() -> Iterator[None]:
    yield
    metrics.MOST_SHARED_ID_USERS.clear()


def test_the_id_that_most_users_share_is_exported_by_kind() -> None:
    # given
    shared = SharedIds()
    shared.add(make_orders(7, users=7, device_id="a/b:{0}", ip="203.0.113.9"))
    shared.add(make_orders(40, users=2, card_id="c1"))
    # when
    shared.report()
    # then an id of two users is not named, however many orders they made
    assert read_exported() == {("device", "a/b%3A%7B0%7D"): 7, ("ip", "203.0.113.9"): 7}


def test_an_id_of_many_users_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    shared = SharedIds()
    shared.add(make_orders(30, users=30, device_id="unset"[::-1]))
    for _ in range(3):
        shared.report()
    (record,) = caplog.records
    assert "A device should be that of few users. Found `tesnu` with 30 of the last 30." in record.getMessage()
    assert "intake.placeholders" in record.getMessage()


def test_of_a_large_batch_some_events_are_looked_at_and_none_of_guests() -> None:
    shared = SharedIds()
    shared.add(make_orders(2_000, users=2_000, device_id="d1"))
    shared.add(make_orders(40, users=1, device_id="d2"))
    shared.add([Arrival("orders/0", n, make_order("guest", n, {"card_id": "c1"})) for n in range(40)])
    shared.report()
    assert read_exported() == {("device", "d1"): BATCH_MAX}


def test_events_of_erased_users_and_ids_of_erased_guests_are_forgotten() -> None:
    # given
    shared = SharedIds()
    shared.add(make_orders(9, users=9, device_id="d1"))
    shared.add(make_orders(9, users=9, guest_id="g1"))
    # when a guest and three users are erased, and one of these sends an event that the erasure covers
    shared.forget({"guest:g1", "u1", "u2", "u3"})
    late = make_orders(3, users=3, device_id="d1")
    shared.add(late, Erasures([Erasure(event_id="e", ts_ms=late[1].event.ts_ms, user_id="u1")]))
    shared.report()
    # then
    assert read_exported() == {("device", "d1"): 7}
