"""Guests over real servers: logins are exact over crashes, and an erased user's guests are erased too."""

import itertools
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from contract.events.model import Order
from contract.hashing import item_hash
from contract.messages import read_erasure_confirmation, to_json
from contract.units import HOUR_MS
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, run_verification
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.state.user_histories import UserHistories

BEGAN_MS = time.time_ns() // 1_000_000 - HOUR_MS
STEPS = ("read", "claim", "publish", "commit", "merge", "cache")


class Orders:
    """Orders of one item each, one second after another."""

    def __init__(self, environment: WorkerEnvironment) -> None:
        self._environment, self._numbers = environment, itertools.count(1)
        self.latest_ms = BEGAN_MS

    def send(self, *orders: tuple[str, str | None, str]) -> None:
        """Orders of a user id, a guest id and an item each."""
        events = list[Order]()
        for user, guest, item in orders:
            number = next(self._numbers)
            self.latest_ms = BEGAN_MS + 1_000 * number
            order = make_order(f"o{number}", item, user=user, ts_ms=self.latest_ms)
            events.append(replace(order, guest_id=guest))
        self._environment.send("orders", [(event.user_id, to_json(event)) for event in events])


def read_items(environment: WorkerEnvironment, user: str, items: Sequence[str]) -> list[str]:
    """The items of a user as lists know them, newest first."""
    names = {item_hash(item): item for item in items}
    latest = UserHistories(environment.open_profiles()).read([user]).latest
    return [names[item] for item in latest.items[0].tolist() if item]


def find_texts(environment: WorkerEnvironment, *texts: bytes) -> list[str]:
    """The keys in Redis in which one of these texts is, in their name or in a value, except marks and progress."""
    (keys,) = environment.redis.pipeline([("KEYS", f"{environment.prefix}*")])
    holders = list[str]()
    for key in keys:
        (kind,) = environment.redis.pipeline([("TYPE", key)])
        command = {b"hash": ("HGETALL", key), b"string": ("GET", key), b"zset": ("ZRANGE", key, 0, -1)}[kind]
        (value,) = environment.redis.pipeline([command])
        content = value if isinstance(value, bytes) else b" ".join(value)
        holders += [key.decode()] if any(text in key or text in content for text in texts) else []
    return holders


def process_all(worker: InProcessWorker, environment: WorkerEnvironment, erasures: int) -> None:
    """Run until all orders are merged, and as many erasures are confirmed."""
    worker.process_all(environment.end_offsets("orders"))
    worker.run_until(lambda: len(environment.read_records("erased")) >= erasures)
    worker.process_all(environment.end_offsets("orders"))


def test_logins_are_exact_over_crashes_at_every_step(apache_stage: WorkerEnvironment) -> None:
    # given workers that are each killed in a batch with acts of a guest, and logins
    stage = apache_stage
    orders, items = Orders(stage), [f"i{n}" for n in range(len(STEPS))]
    for number, step in enumerate(STEPS):
        guest = f"g{number}"
        orders.send((f"guest:{guest}", guest, items[number]), ("anna", guest, "i0"), (f"guest:{guest}", None, "later"))
        InProcessWorker(stage, step, step_events=[StepEvent(step, 1, raise_killed)]).run_until_killed()
    # when
    with InProcessWorker(stage, "last") as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.find_differences("orders") == []
    result = run_verification(stage)
    assert (result.mismatches, result.unchecked, result.logins > 1) == (0, 0, True), result.differences
    assert set(read_items(stage, "anna", [*items, "later"])) == set(items)
    # and a rebuild gives the same
    run_rebuild(stage)
    assert run_verification(stage).mismatches == 0
    assert set(read_items(stage, "anna", [*items, "later"])) == set(items)


def test_verify_finds_a_login_that_is_missing_changed_or_too_many(stage: WorkerEnvironment) -> None:
    # given
    Orders(stage).send(("guest:g", "g", "i1"), ("anna", "g", "i2"))
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))
    profiles = stage.open_profiles()
    (key,) = profiles.keys.histories(["user:anna"])
    fields = stage.redis.pipeline([("HGETALL", key)])[0]
    field, record = next((f, v) for f, v in zip(fields[::2], fields[1::2], strict=True) if f.startswith(b"logins:"))
    (other_key,) = profiles.keys.histories(["user:bert"])
    # then
    for command, undo in (
        (("HDEL", key, field), ("HSET", key, field, record)),
        (("HSET", key, field, record[:-1] + b"\x00"), ("HSET", key, field, record)),
        (("HSET", key, field, b"x"), ("HSET", key, field, record)),
        (("HSET", other_key, field, record), ("DEL", other_key)),
    ):
        stage.redis.pipeline([command])
        assert run_verification(stage).mismatches == 1, command
        stage.redis.pipeline([undo])
    assert run_verification(stage).mismatches == 0


@pytest.mark.parametrize("killed_at", [None, "publish"])
def test_erasing_a_user_erases_the_guests_and_no_one_else(
    apache_stage: WorkerEnvironment, killed_at: str | None
) -> None:
    # given a guest before a login of anna, then one of bert
    stage, orders = apache_stage, Orders(apache_stage)
    orders.send(("guest:gu-1", "gu-1", "i1"), ("anna", "gu-1", "i2"), ("anna", "gu-2", "i3"))
    until_ms = orders.latest_ms
    orders.send(("guest:gu-1", "gu-1", "i4"), ("bert", "gu-1", "i5"), ("guest:gu-1", None, "i6"), ("anna", None, "i7"))
    with InProcessWorker(stage, erases=True) as worker:
        worker.process_all(stage.end_offsets("orders"))
    items = [f"i{n}" for n in range(8)]
    assert read_items(stage, "anna", items) == ["i7", "i3", "i2", "i1"]
    # when
    stage.send_erasure("anna", until_ms, "e1")
    if killed_at:
        worker = InProcessWorker(stage, "killed", step_events=[StepEvent(killed_at, 1, raise_killed)], erases=True)
        worker.run_until_killed()
    with InProcessWorker(stage, "last", erases=True) as worker:
        process_all(worker, stage, 3)
    # then what the guest did before her login is gone, and what came later stays
    assert read_items(stage, "anna", items) == ["i7"]
    assert read_items(stage, "bert", items) == ["i5", "i4"]
    assert read_items(stage, "guest:gu-1", items) == ["i6"]
    assert find_texts(stage, b"gu-2") == []
    confirmed = {read_erasure_confirmation(record.value or b"") for record in stage.read_records("erased")}
    assert {(c.event_id, c.user_id) for c in confirmed} == {("e1", u) for u in ("anna", "guest:gu-1", "guest:gu-2")}
    assert stage.find_differences("orders") == []
    assert run_verification(stage).mismatches == 0
    # and it stays gone
    run_rebuild(stage)
    assert read_items(stage, "bert", items) == ["i5", "i4"]
    assert read_items(stage, "anna", items) == ["i7"]
    assert run_verification(stage).mismatches == 0


def test_a_login_that_comes_after_its_erasure_erases_its_guest(apache_stage: WorkerEnvironment) -> None:
    # given
    stage, orders = apache_stage, Orders(apache_stage)
    stage.send_erasure("anna", BEGAN_MS + HOUR_MS, "e1")
    orders.send(("guest:gu-1", "gu-1", "i1"), ("anna", "gu-1", "i2"))
    # when
    with InProcessWorker(stage, erases=True) as worker:
        process_all(worker, stage, 2)
    # then
    assert find_texts(stage, b"gu-1", b"anna") == []
    assert stage.read_erasures().until_ms["user:guest:gu-1"] == orders.latest_ms


def test_erasing_a_guest_leaves_the_user_without_the_guests_items(apache_stage: WorkerEnvironment) -> None:
    # given
    stage, orders = apache_stage, Orders(apache_stage)
    orders.send(("guest:g", "g", "i1"), ("anna", "g", "i2"))
    with InProcessWorker(stage, erases=True) as worker:
        worker.process_all(stage.end_offsets("orders"))
        # when its id is given alone
        document = b'{"event_id": "e1", "ts_ms": %d, "guest_id": "g"}' % orders.latest_ms
        stage.send("erasures", [("g", document)])
        process_all(worker, stage, 1)
    # then
    assert read_items(stage, "anna", ["i1", "i2"]) == ["i2"]
    assert stage.read_erasures().until_ms == {"user:guest:g": orders.latest_ms}
    assert run_verification(stage).mismatches == 0
