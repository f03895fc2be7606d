"""Generated records are as valid or bad as declared."""

import pytest

from contract.errors import BadEvent
from contract.events.model import REASONS
from contract.events.reading import decode
from testkit.traffic.event_generator import BAD_RECORDS, ORDERS_ONLY, SIDE_KINDS, Traffic, TrafficRecord

NOW_MS = 1_700_000_000_000


def make_traffic(lane: str, seed: int) -> Traffic:
    return Traffic(lane=lane, seed=seed, now_ms=lambda: NOW_MS)


def make_events(lane: str, seed: int, count: int = 3_000) -> list[TrafficRecord]:
    traffic = make_traffic(lane, seed)
    return [record for _ in range(count) for record in traffic.next_records()]


def find_reason(record: TrafficRecord) -> str | None:
    try:
        decode(record.kind, record.value)
    except BadEvent as error:
        return error.reason
    return None


@pytest.mark.parametrize("lane", sorted(SIDE_KINDS))
def test_every_record_is_rejected_for_its_declared_reason(lane: str, seed: int) -> None:
    for record in make_events(lane, seed):
        assert find_reason(record) == record.reason


@pytest.mark.parametrize("lane", sorted(SIDE_KINDS))
def test_a_seed_determines_the_records(lane: str, seed: int) -> None:
    assert make_events(lane, seed, 200) == make_events(lane, seed, 200)
    assert make_events(lane, seed, 200) != make_events(lane, seed + 1, 200)


def test_every_kind_of_event_and_of_bad_record_occurs(seed: int) -> None:
    # when
    records = make_events("orders", seed) + make_events("browsing", seed)
    # then
    reasons = {reason for _, reason in {**BAD_RECORDS, **ORDERS_ONLY}.values()}
    assert {record.reason for record in records} == reasons | {None}
    assert reasons == set(REASONS) - {"bad_label", "bad_schema", "bad_time", "cannot_score", "too_large_to_keep"}
    assert {record.kind for record in records} == {"orders", "clicks", *SIDE_KINDS["orders"], *SIDE_KINDS["browsing"]}


def test_some_orders_are_sent_twice_and_some_are_of_the_year_3000(seed: int) -> None:
    # when
    orders = [record for record in make_events("orders", seed) if record.kind == "orders" and record.reason is None]
    # then
    assert len({order.event_id for order in orders}) < len(orders)
    assert any(decode("orders", order.value).ts_ms > 2 * NOW_MS for order in orders)
