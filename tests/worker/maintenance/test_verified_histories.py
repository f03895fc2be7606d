"""Histories compared with what their log gives: every corruption is found, and what is folded during it is none."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest

from contract.events.model import Event
from contract.hashing import BUCKETS
from contract.messages import to_json
from contract.profiles.entity_updates import Arrival
from contract.profiles.histories import ENTRY, HEADER, ORDER, history_key, read_entries
from contract.profiles.record import profile_key
from testkit.oracle.feeder import ProfileFeeder, split_batches
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import NOW_MS, make_click, make_order
from tests.worker.maintenance.runs import run_rebuild, run_verification
from tests.worker.worker_lifecycle import InProcessWorker
from transport.records import OffsetRange
from worker.maintenance.comparison import StateComparison, Unchecked, VerificationResult
from worker.maintenance.recomputation import Recomputation, TimedArrival
from worker.maintenance.snapshot import read_snapshot
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore
from worker.state.user_histories import UserHistories

USERS: Final = 3
SOURCE: Final = "clicks/1"  # of the second user
KEY: Final = history_key("user:u1")
WRONG_KEY: Final = "history:{64}:u1"  # there is no bucket 64
OTHER_KEY: Final = history_key("user:u9")  # of a user without events


def make_arrivals(numbers: range) -> list[Arrival]:
    """Clicks of three users in turn, in two partitions, and every tenth time an order."""
    arrivals = list[Arrival]()
    for n in numbers:
        user, ts_ms = f"u{n % USERS}", NOW_MS + 700 * n
        event: Event = make_click(f"c{n}", f"i{n % 7}", user=user, ts_ms=ts_ms)
        arrivals.append(Arrival(f"clicks/{n % USERS % 2}", n, event))
        if n % 10 == 0:
            arrivals.append(Arrival("orders/0", n, make_order(f"o{n}", "i1", "i2", user=user, ts_ms=ts_ms)))
    return arrivals


@pytest.fixture
def profiles(redis_url: str) -> Iterator[RedisProfileStore]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield RedisProfileStore(client=client, prefix="shop:")
    client.close()


def fold_log(profiles: RedisProfileStore, arrivals: Sequence[Arrival]) -> None:
    """Fold a log and advance every bucket."""
    feeder = ProfileFeeder(profiles)
    for batch in split_batches(arrivals, iter(lambda: 50, None)):
        feeder.feed(batch)
    profiles.merge({}, feeder.merged, feeder.positions_after(arrivals, range(BUCKETS)))


def verify(
    profiles: RedisProfileStore,
    arrivals: Sequence[Arrival],
    *,
    low: int = 0,
    has_expired: bool = False,
    is_late: bool = False,
    fold_during_scan: Callable[[], object] = lambda: None,
) -> VerificationResult:
    """Compare Redis with the log, as `worker verify` does."""
    sources = sorted({arrival.source for arrival in arrivals})
    merged = profiles.read_offsets(sources)
    fold_during_scan()
    snapshot = read_snapshot(profiles, lambda _: True, merged, ())
    recomputation = Recomputation(wanted=lambda _: True, last_offset=snapshot.last_offset)
    recomputation.add([TimedArrival(arrival, arrival.event.ts_ms) for arrival in arrivals])
    return StateComparison(
        actual=snapshot.slices,
        expected={(e, s): record for e, own in recomputation.slices.items() for s, record in own.items()},
        actual_histories=snapshot.histories,
        expected_histories=recomputation.histories,
        has_all_histories=lambda _: not is_late,
        offset_ranges=dict.fromkeys(sources, OffsetRange(low, 10_000)),
        may_have_expired=lambda _: has_expired,
    ).compare()


def read_history(profiles: RedisProfileStore) -> bytes:
    (record,) = profiles.client.pipeline([("HGET", f"shop:{KEY}", SOURCE)])
    return bytes(record)


def write_history(profiles: RedisProfileStore, record: bytes, key: str = KEY, source: str = SOURCE) -> None:
    profiles.client.pipeline([("HSET", f"shop:{key}", source, record)])


def flip_bit(profiles: RedisProfileStore) -> None:
    record = read_history(profiles)
    write_history(profiles, record[:-8] + bytes([record[-8] ^ 16]) + record[-7:])


def delete_history(profiles: RedisProfileStore) -> None:
    profiles.client.pipeline([("HDEL", f"shop:{KEY}", SOURCE)])


def drop_last_entry(profiles: RedisProfileStore) -> None:
    write_history(profiles, read_history(profiles)[: -ENTRY.itemsize])


def drop_first_entry(profiles: RedisProfileStore) -> None:
    write_history(profiles, HEADER + read_history(profiles)[len(HEADER) + ENTRY.itemsize :])


def add_entry(profiles: RedisProfileStore) -> None:
    record = read_history(profiles)
    write_history(profiles, HEADER + record[len(HEADER) + ENTRY.itemsize :] + record[-ENTRY.itemsize :])


def truncate(profiles: RedisProfileStore) -> None:
    write_history(profiles, read_history(profiles)[:-1])


def change_layout(profiles: RedisProfileStore) -> None:
    write_history(profiles, b"\x01\x02\x03\x04" + read_history(profiles)[len(HEADER) :])


def write_too_many(profiles: RedisProfileStore) -> None:
    write_history(profiles, read_history(profiles), OTHER_KEY)


def write_to_unknown_partition(profiles: RedisProfileStore) -> None:
    write_history(profiles, read_history(profiles), source="clicks/99")


def write_to_wrong_bucket(profiles: RedisProfileStore) -> None:
    write_history(profiles, read_history(profiles), WRONG_KEY)


CORRUPTIONS: Final[dict[Callable[[RedisProfileStore], None], str]] = {
    flip_bit: "entry 1 from the end should be",
    delete_history: "is missing",
    drop_last_entry: "from the end should be",
    drop_first_entry: "entries should be 64, are 63",
    add_entry: "from the end should be",
    truncate: "a history should have",
    change_layout: "layout should be",
    write_too_many: "should not be there",
    write_to_unknown_partition: "clicks/99",
    write_to_wrong_bucket: "profile:{64}:user:u1",
}


@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=[corrupt.__name__ for corrupt in CORRUPTIONS])
def test_every_kind_of_corruption_of_a_history_is_found(
    profiles: RedisProfileStore, corrupt: Callable[[RedisProfileStore], None]
) -> None:
    # given users with more clicks than a history keeps
    arrivals = make_arrivals(range(240))
    fold_log(profiles, arrivals)
    assert len(read_entries(read_history(profiles))) == 64
    before = verify(profiles, arrivals)
    assert (before.mismatches, before.unchecked, before.histories) == (0, 0, 2 * USERS)
    # when
    corrupt(profiles)
    # then
    after = verify(profiles, arrivals)
    assert (after.mismatches, after.unchecked) == (1, 0)
    assert after.differences[0].startswith("history of ")
    assert CORRUPTIONS[corrupt] in after.differences[0]


def test_a_history_without_a_profile_is_compared(profiles: RedisProfileStore) -> None:
    # given a user whose profile was deleted
    arrivals = make_arrivals(range(30))
    fold_log(profiles, arrivals)
    profiles.client.pipeline([("DEL", f"shop:{profile_key('user:u1')}")])
    # then the slices are missing, and the histories are what their log gives
    result = verify(profiles, arrivals)
    assert (result.mismatches, result.histories) == (2, 2 * USERS)
    assert not [difference for difference in result.differences if difference.startswith("history")]


def test_events_that_are_folded_during_the_scan_are_no_mismatch(profiles: RedisProfileStore) -> None:
    # given
    arrivals = make_arrivals(range(60))
    fold_log(profiles, arrivals[:30])
    # when
    result = verify(profiles, arrivals, fold_during_scan=lambda: fold_log(profiles, arrivals))
    # then
    assert (result.mismatches, result.unchecked, result.histories) == (0, 0, 2 * USERS)


@pytest.mark.parametrize("corrupt", [delete_history, drop_first_entry])
@pytest.mark.parametrize(
    ("conditions", "reason"),
    [({"low": 1}, Unchecked.TRUNCATED), ({"is_late": True}, Unchecked.LATE)],
    ids=["truncated log", "late histories"],
)
def test_what_no_log_or_an_older_release_had_cannot_be_checked(
    profiles: RedisProfileStore,
    corrupt: Callable[[RedisProfileStore], None],
    conditions: dict[str, Any],
    reason: Unchecked,
) -> None:
    # given
    arrivals = make_arrivals(range(240))
    fold_log(profiles, arrivals)
    corrupt(profiles)
    # then
    result = verify(profiles, arrivals, **conditions)
    assert (result.mismatches, result.unchecked_by_reason) == (0, {reason: 1})


def test_a_missing_history_may_have_expired(profiles: RedisProfileStore) -> None:
    # given
    arrivals = make_arrivals(range(30))
    fold_log(profiles, arrivals)
    delete_history(profiles)
    # then
    assert verify(profiles, arrivals, has_expired=True).unchecked_by_reason == {Unchecked.EXPIRED: 1}


def fold_orders(stage: WorkerEnvironment, numbers: range) -> None:
    orders = [make_order(f"o{n}", f"i{n % 7}", user=f"u{n % USERS}", ts_ms=NOW_MS + 700 * n) for n in numbers]
    stage.send("orders", [(order.user_id, to_json(order)) for order in orders])
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))


def test_histories_of_a_state_that_is_older_than_them_are_made_whole_by_a_rebuild(stage: WorkerEnvironment) -> None:
    # given a state of a release without histories, and orders since
    fold_orders(stage, range(60))
    stage.redis.pipeline([("DEL", f"{stage.prefix}{key}") for key in ("history_begins", KEY)])
    fold_orders(stage, range(60, 90))
    # then they are no mismatch, and lists have the items since
    late = run_verification(stage)
    assert (late.mismatches, late.unchecked_by_reason) == (0, {Unchecked.LATE: 1})
    assert UserHistories(stage.open_profiles()).read(["u1"]).latest.actions[0, :11].tolist() == [ORDER] * 10 + [0]
    # when
    run_rebuild(stage)
    # then
    whole = run_verification(stage)
    assert (whole.mismatches, whole.unchecked, whole.histories) == (0, 0, USERS)
    assert UserHistories(stage.open_profiles()).read(["u1"]).latest.actions[0, :31].tolist() == [ORDER] * 30 + [0]
