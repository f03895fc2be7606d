"""The traffic of the ledger is what the ledger is told that it is."""

import pytest

from contract.errors import BadEvent
from contract.events import REASONS, decode
from testkit.traffic.event_generator import BAD_RECORDS, ORDERS_ONLY, SIDE_KINDS, Traffic, TrafficRecord

NOW_MS = 1_700_000_000_000


def make_traffic(lane: str, seed: int) -> Traffic:
    return Traffic(lane=lane, seed=seed, now_ms=lambda: NOW_MS)


def make_events(lane: str, seed: int, count: int = 3_000) -> list[TrafficRecord]:
    shop = make_traffic(lane, seed)
    return [sent for _ in range(count) for sent in shop.next_records()]


def find_reason(sent: TrafficRecord) -> str | None:
    try:
        decode(sent.kind, sent.value)
    except BadEvent as error:
        return error.reason
    return None


@pytest.mark.parametrize("lane", sorted(SIDE_KINDS))
def test_every_record_is_as_good_or_bad_as_it_says(lane: str, seed: int) -> None:
    for sent in make_events(lane, seed):
        assert find_reason(sent) == sent.reason


@pytest.mark.parametrize("lane", sorted(SIDE_KINDS))
def test_a_seed_gives_the_same_records_again_and_another_seed_others(lane: str, seed: int) -> None:
    assert make_events(lane, seed, 200) == make_events(lane, seed, 200)
    assert make_events(lane, seed, 200) != make_events(lane, seed + 1, 200)


def test_every_way_to_be_bad_and_every_kind_of_event_flows(seed: int) -> None:
    # when
    sent = make_events("orders", seed) + make_events("browsing", seed)
    # then
    reasons = {reason for _, reason in {**BAD_RECORDS, **ORDERS_ONLY}.values()}
    assert {record.reason for record in sent} == reasons | {None}
    assert reasons == set(REASONS) - {"bad_time", "cannot_score"}
    assert {record.kind for record in sent} == {"orders", "clicks", *SIDE_KINDS["orders"], *SIDE_KINDS["browsing"]}


def test_some_orders_are_sent_twice_and_some_come_from_the_year_3000(seed: int) -> None:
    # when
    orders = [sent for sent in make_events("orders", seed) if sent.kind == "orders" and sent.reason is None]
    # then
    assert len({sent.event_id for sent in orders}) < len(orders)
    assert any(decode("orders", sent.value).ts_ms > 2 * NOW_MS for sent in orders)
