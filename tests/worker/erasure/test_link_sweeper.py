"""Links with an erased user are masked in the stored slices of others, before the erasure is confirmed."""

from collections.abc import Iterable

import numpy as np
import pytest

from contract.errors import StaleState
from contract.events.model import Erasure, Line, Order
from contract.hashing import hash_id
from contract.messages import to_json
from contract.profiles.erasures import Erasures
from contract.profiles.record import LAYOUT, RECORD
from testkit.metrics import read_metric
from tests.worker.environment import WorkerEnvironment
from tests.worker.erasure.test_executor import (
    count_confirmations,
    find_differences,
    order_ms,
    process_all,
    read_profiles,
)
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, run_verification
from tests.worker.worker_lifecycle import InProcessWorker
from transport.records import TopicPartition
from worker.erasure import link_sweeper
from worker.erasure.link_sweeper import LinkSweeper, Sweep
from worker.erasure.progress import ErasureOffsets
from worker.ops import metrics
from worker.redis.client import RedisClient
from worker.state.offsets import OffsetTracker
from worker.state.profile_store import RedisProfileStore

KINDS = ("device", "ip", "card", "item", "seller")


def make_linked_order(number: int) -> Order:
    """An order that links one of seven users with the same device, address, card, item and seller."""
    line = Line(item_id="i", quantity=1, unit_price=1.0, seller_id="s")
    plain = make_order(f"o{number}", user=f"u{number % 7}", ts_ms=order_ms(number), device="d", card="c")
    fields = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return Order(**{**fields, "lines": (line,), "ip": "203.0.113.9"})


def send_linked_orders(environment: WorkerEnvironment, numbers: Iterable[int]) -> None:
    environment.send("orders", [(order.user_id, to_json(order)) for order in map(make_linked_order, numbers)])


def find_linked(environment: WorkerEnvironment, user: str) -> set[str]:
    """The kinds of entities whose stored slices contain the hash of a user, at whatever place."""
    ident = hash_id(f"user:{user}").to_bytes(8, "little")
    profiles = read_profiles(environment)
    return {entity.partition(":")[0] for entity, slices in profiles.items() if ident in b"".join(slices.values())}


@pytest.mark.apache_kafka
def test_no_stored_slice_contains_the_hash_of_an_erased_user(apache_stage: WorkerEnvironment) -> None:
    # given
    environment = apache_stage
    send_linked_orders(environment, range(40))
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        assert find_linked(environment, "u1") == set(KINDS)
        # when one user is erased, and another up to the middle of his orders
        environment.send_erasure("u1", order_ms(99), "g1")
        environment.send_erasure("u2", order_ms(20), "g2")
        worker.run_until(lambda: count_confirmations(environment) == {"g1": 1, "g2": 1})
        # then
        assert find_linked(environment, "u1") == set()
        assert find_linked(environment, "u2") == set(KINDS)
        process_all(worker, environment)
        stored = read_profiles(environment)
        assert find_differences(environment) == []
        result = run_verification(environment)
        assert (result.mismatches, result.unchecked) == (0, 0)
        # when orders of before the erasure arrive late
        send_linked_orders(environment, [43, 50])
        process_all(worker, environment)
        # then
        assert find_linked(environment, "u1") == set()
        assert find_differences(environment) == []
    # when everything is rebuilt
    stored = read_profiles(environment)
    run_rebuild(environment)
    # then the bytes are the same
    assert read_profiles(environment) == stored


@pytest.mark.apache_kafka
def test_a_confirmation_waits_until_all_links_are_masked(
    apache_stage: WorkerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker without time to scan
    environment = apache_stage
    send_linked_orders(environment, range(20))
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        environment.send_erasure("u1", order_ms(99), "g1")
        monkeypatch.setattr(link_sweeper, "STEP_S", -1.0)
        worker.run_until(lambda: "user:u1" not in read_profiles(environment))
        for _ in range(20):
            worker.step()
        # then
        assert count_confirmations(environment) == {}
        assert find_linked(environment, "u1") == set(KINDS)
        # when
        monkeypatch.setattr(link_sweeper, "STEP_S", 0.01)
        worker.run_until(lambda: count_confirmations(environment) == {"g1": 1})
        # then
        assert find_linked(environment, "u1") == set()


@pytest.mark.apache_kafka
def test_a_worker_masks_what_an_earlier_release_left(apache_stage: WorkerEnvironment) -> None:
    # given slices that name an erased user, and a progress that is complete
    environment = apache_stage
    send_linked_orders(environment, range(20))
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        linked = {entity: slices for entity, slices in read_profiles(environment).items() if entity[:4] != "user"}
        environment.send_erasure("u1", order_ms(99), "g1")
        process_all(worker, environment)
    profiles = environment.open_profiles()
    for entity, slices in linked.items():
        for source, record in slices.items():
            profiles.client.pipeline([("HSET", profiles.keys.profile(entity), source, record)])
    assert find_linked(environment, "u1") == set(KINDS)
    # when
    with InProcessWorker(environment, erases=True) as worker:
        worker.run_until(lambda: not find_linked(environment, "u1"))
        process_all(worker, environment)
    # then
    assert find_differences(environment) == []
    assert count_confirmations(environment) == {"g1": 1}


def sweep_all(sweeper: LinkSweeper, read_offsets: ErasureOffsets) -> Sweep:
    """Scan to the end."""
    while (sweep := sweeper.step(read_offsets)) is None:
        pass
    return sweep


def test_one_scan_masks_all_erasures_and_only_own_sources(redis_url: str) -> None:
    # given slices of an own and of a foreign source, linked with two erased users and others
    client = RedisClient(url=redis_url, timeout_s=20)
    profiles, partition = RedisProfileStore(client=client, prefix="shop:"), TopicPartition("shop.orders", 0)
    record = np.zeros(1, RECORD)
    record["layout"] = LAYOUT
    record["links"]["id"][0, 0, :3] = [hash_id(f"user:u{n}") for n in range(3)]
    record["links"]["seen_s"][0, 0, :3] = [1, 2, 3]
    entities = [f"item:{n}" for n in range(500)]
    for entity in entities:
        client.pipeline([("HSET", profiles.keys.profile(entity), "orders/0", record.tobytes(), "orders/1", b"other")])
    erasures, offsets = Erasures(), OffsetTracker(sources={partition: "orders/0"}, committed={partition: 1})
    sweeper = LinkSweeper(profiles=profiles, offsets=offsets, erasures=erasures)
    assert sweeper.step({}) is None
    erasures.add(Erasure(event_id="g0", ts_ms=1_000, user_id="u0"))
    erasures.add(Erasure(event_id="g1", ts_ms=2_999, user_id="u1"))
    # when
    masked = read_metric(metrics.LINKS_MASKED)
    sweep = sweep_all(sweeper, {"erasures/0": 2})
    # then
    assert (sweep.profiles, sweep.masked, dict(sweep.read_offsets)) == (500, 500, {"erasures/0": 2})
    assert read_metric(metrics.LINKS_MASKED) == masked + 500
    assert sweeper.is_swept(partition)
    for entity in entities:
        own, other = client.pipeline([("HMGET", profiles.keys.profile(entity), "orders/0", "orders/1")])[0]
        ids = np.frombuffer(own, RECORD)["links"]["id"][0, 0].tolist()
        assert [ident >> 63 for ident in ids[:2]] == [1, 1]
        assert ids[2] == hash_id("user:u2")
        assert other == b"other"
    # and there is nothing more to do until the next erasure
    assert sweeper.step({"erasures/0": 2}) is None
    # when another worker has merged since
    erasures.add(Erasure(event_id="g2", ts_ms=9_000, user_id="u2"))
    client.pipeline([("HSET", profiles.keys.offsets(bucket), "orders/0", 7) for bucket in range(64)])
    # then
    with pytest.raises(StaleState):
        sweep_all(sweeper, {"erasures/0": 3})
    client.close()
