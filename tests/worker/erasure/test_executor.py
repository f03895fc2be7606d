"""Erasure over real servers: erased data is deleted, stays deleted, and no other data changes."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from contract.messages import ErasureConfirmation, read_erasure_confirmation, to_json
from contract.profiles.erasures import Erasures
from contract.profiles.slices import Slices
from contract.units import HOUR_MS
from testkit.metrics import read_metric
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, serving_generation
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.erasure.link_sweeper import mask_slices
from worker.ops import metrics
from worker.state.profile_scan import ProfileScan

BEGAN_MS = time.time_ns() // 1_000_000 - HOUR_MS
STEPS = ("read", "claim", "publish", "commit", "merge", "cache")


def order_ms(number: int) -> int:
    """The time of an order: a second after the order before it."""
    return BEGAN_MS + number * 1_000


def send_orders(environment: WorkerEnvironment, numbers: Iterable[int]) -> list[str]:
    """Send orders of five users in turn, on two devices; returns their ids."""
    orders = [
        make_order(f"o{n}", user=f"u{n % 5}", device=f"d{n % 2}", card=f"c{n % 5}", ts_ms=order_ms(n)) for n in numbers
    ]
    environment.send("orders", [(order_event.user_id, to_json(order_event)) for order_event in orders])
    return [order_event.event_id for order_event in orders]


def read_profiles(environment: WorkerEnvironment) -> dict[str, Slices]:
    """Every profile in Redis."""
    store = environment.open_profiles()
    profiles = ProfileScan(store.client, store.keys).slices(lambda _: True)
    return {key.partition("}:")[2]: slices for key, slices in profiles if slices}


def find_differences(environment: WorkerEnvironment) -> list[str]:
    """Byte differences between Redis and a recomputation that knows the erasures, and profiles only in Redis."""
    recomputed = environment.recompute_profiles("orders").slices
    stored = read_profiles(environment)
    return [*environment.find_differences("orders"), *sorted(stored.keys() - recomputed.keys())]


def find_changes(before: Mapping[str, Slices], after: Mapping[str, Slices]) -> set[str]:
    """The entities of both whose profiles differ."""
    return {entity for entity in before.keys() & after.keys() if after[entity] != before[entity]}


def mask_profiles(profiles: Mapping[str, Slices], erasures: Erasures) -> dict[str, dict[str, bytes]]:
    """Profiles whose links with erased users are masked."""
    return {
        entity: {
            source: masked[0][2] if (masked := mask_slices([(entity, source, record)], erased_ids)) else record
            for source, record in slices.items()
        }
        for erased_ids in [erasures.to_erased_ids()]
        for entity, slices in profiles.items()
    }


def read_decision_ids(environment: WorkerEnvironment) -> set[str]:
    """Ids of the orders whose decisions are in Redis."""
    (keys,) = environment.redis.pipeline([("KEYS", f"{environment.prefix}decision:*")])
    return {key.decode().rpartition(":")[2] for key in keys}


def count_confirmations(environment: WorkerEnvironment) -> Counter[str]:
    """Committed confirmations by erasure."""
    return Counter(
        read_erasure_confirmation(record.value or b"").event_id for record in environment.read_records("erased")
    )


def process_all(worker: InProcessWorker, environment: WorkerEnvironment) -> None:
    """Run until all orders are answered and merged, and all erasures confirmed."""
    orders = environment.end_offsets("orders")
    erasures = environment.end_offsets("erasures")
    committed = worker.offsets.committed
    worker.run_until(lambda: all(committed.get(partition, 0) >= end for partition, end in erasures.items()))
    worker.process_all(orders)


def test_an_erased_user_stays_erased_over_a_replay_and_a_rebuild(apache_stage: WorkerEnvironment) -> None:
    # given a worker that has folded all orders
    environment = apache_stage
    sent = send_orders(environment, range(40))
    refolds, bad = metrics.RECOVERIES.labels("FoldAgain"), metrics.BAD_ERASURES.labels("not_json")
    counts = [read_metric(refolds), read_metric(bad)]
    with InProcessWorker(environment, erases=True) as worker:
        worker.process_all(environment.end_offsets("orders"))
        before = read_profiles(environment)
        assert find_differences(environment) == []

        # when one user is erased, another up to the middle of their orders, and there are odd records
        first = environment.send_erasure("u1", order_ms(99), "g1")
        for user, number, name in (("u3", 22, "g3"), ("u3", 22, "g3"), ("u3", 2, "g3-earlier"), ("stranger", 99, "g0")):
            environment.send_erasure(user, order_ms(number), name)
        environment.send("erasures", [("u2", None), ("u4", b"not JSON")])  # type: ignore[list-item]
        process_all(worker, environment)

        # then the first is gone, the other keeps only later orders, and others are the same but for their links
        after = read_profiles(environment)
        assert find_differences(environment) == []
        assert before.keys() - after.keys() == {"user:u1"}
        assert find_changes(mask_profiles(before, environment.read_erasures()), after) == {"user:u3"}
        assert read_decision_ids(environment) == {
            f"o{n}" for n in range(40) if n % 5 != 1 and not (n % 5 == 3 and n <= 22)
        }
        assert [read_metric(refolds), read_metric(bad)] == [counts[0] + 1, counts[1] + 1]
        # and each erasure is confirmed once
        assert count_confirmations(environment) == {"g1": 1, "g3": 2, "g3-earlier": 1, "g0": 1}
        confirmations = [
            read_erasure_confirmation(record.value or b"") for record in environment.read_records("erased")
        ]
        assert ErasureConfirmation(event_id="g1", user_id="u1", ts_ms=first.ts_ms) in confirmations
        assert len(environment.read_records("dead_letters")) == 2

        # when orders of erased users arrive late, and Redis loses all data, so that the whole log is folded again
        sent += send_orders(environment, [41, 46])
        process_all(worker, environment)
        assert "o41" not in read_decision_ids(environment)
        environment.redis.pipeline([("FLUSHALL",)])
        worker.run_until(lambda: bool(read_profiles(environment)))
        process_all(worker, environment)

        # then
        assert find_differences(environment) == []
        assert "user:u1" not in read_profiles(environment)

        # when the state is rebuilt, and another user is erased after that
        run_rebuild(environment)
        assert serving_generation(environment) == "g1"
        assert "user:u1" not in read_profiles(environment)
        environment.send_erasure("u2", order_ms(99), "g2")
        process_all(worker, environment)

    # then
    assert find_differences(environment) == []
    assert not {"user:u1", "user:u2"} & read_profiles(environment).keys()
    assert count_confirmations(environment)["g1"] == count_confirmations(environment)["g2"] == 1
    assert Counter(decision.event_id for decision in environment.read_decisions()) == Counter(sent)


def test_a_crash_at_any_step_restores_no_erased_user(apache_stage: WorkerEnvironment) -> None:
    # given workers that are each killed in a batch with orders of erased users, after reading one more erasure
    environment, sent = apache_stage, send_orders(apache_stage, range(30))
    covered = set[int]()
    for number, step in enumerate(STEPS):
        numbers = range(30 * (number + 1), 30 * (number + 2))
        sent += send_orders(environment, numbers)
        environment.send_erasure(f"u{number % 5}", order_ms(numbers[20]), step)
        covered |= {n for n in range(numbers[20] + 1) if n % 5 == number % 5}
        InProcessWorker(
            environment, step, step_events=[StepEvent(step, 2, raise_killed)], erases=True
        ).run_until_killed()
    # when
    InProcessWorker(
        environment, "recover", step_events=[StepEvent("recover", 1, raise_killed)], erases=True
    ).run_until_killed()
    with InProcessWorker(environment, "last", erases=True) as worker:
        process_all(worker, environment)
    # then
    assert find_differences(environment) == []
    assert read_decision_ids(environment) == {ident for ident in sent if int(ident[1:]) not in covered}
    assert count_confirmations(environment) == dict.fromkeys(STEPS, 1)
    assert Counter(decision.event_id for decision in environment.read_decisions()) == Counter(sent)
