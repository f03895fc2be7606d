"""Forgetting over real servers: what an erasure covers is gone, stays gone, and nothing else is touched."""

import time
from collections import Counter
from collections.abc import Iterable

from contract.messages import ErasureConfirmation, read_erasure_confirmation, to_json
from contract.profiles.slices import Slices
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.maintenance.runs import run_rebuild, serving_generation
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.ops import metrics

BEGAN_MS = time.time_ns() // 1_000_000 - 3_600_000
STEPS = ("read", "claim", "publish", "commit", "merge", "cache")


def order_ms(number: int) -> int:
    """When an order was placed: a second after the one before it."""
    return BEGAN_MS + number * 1_000


def send_orders(stage: WorkerEnvironment, numbers: Iterable[int]) -> list[str]:
    """Orders of five users, by turns, on two devices."""
    orders = [
        make_order(f"o{n}", user=f"u{n % 5}", device=f"d{n % 2}", card=f"c{n % 5}", ts_ms=order_ms(n)) for n in numbers
    ]
    stage.send("orders", [(order_event.user_id, to_json(order_event)) for order_event in orders])
    return [order_event.event_id for order_event in orders]


def read_profiles(stage: WorkerEnvironment) -> dict[str, Slices]:
    """Every profile in Redis."""
    profiles = stage.open_profiles().scan(lambda _: True)
    return {key.partition("}:")[2]: slices for key, slices in profiles if slices}


def find_differences(stage: WorkerEnvironment) -> list[str]:
    """Where Redis is not, to the byte, what a clean pass that knows the erasures gives; also what is too much."""
    clean, stored = stage.recompute_profiles("orders").slices, read_profiles(stage)
    return [*stage.find_differences("orders"), *sorted(stored.keys() - clean.keys())]


def stored_decisions(stage: WorkerEnvironment) -> set[str]:
    """Orders whose decisions Redis holds."""
    (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}decision:*")])
    return {key.decode().rpartition(":")[2] for key in keys}


def count_confirmations(stage: WorkerEnvironment) -> Counter[str]:
    """How often each erasure was confirmed, among what readers of committed records see."""
    return Counter(read_erasure_confirmation(record.value or b"").event_id for record in stage.read_records("erased"))


def process_all(worker: InProcessWorker, stage: WorkerEnvironment) -> None:
    """Work until all orders are answered and remembered, and all erasures confirmed."""
    orders, erasures = stage.end_offsets("orders"), stage.end_offsets("erasures")
    committed = worker.positions.committed
    worker.run_until(lambda: all(committed.get(partition, 0) >= end for partition, end in erasures.items()))
    worker.process_all(orders)


def test_an_erased_person_is_gone_and_stays_gone_over_a_replay_and_a_rebuild(apache_stage: WorkerEnvironment) -> None:
    # given a worker that has folded it all
    stage = apache_stage
    sent = send_orders(stage, range(40))
    again, bad = metrics.RECOVERIES.labels("FoldAgain"), metrics.BAD_ERASURES.labels("not_json")
    counts = [again._value.get(), bad._value.get()]
    with InProcessWorker(stage, erases=True) as life:
        life.process_all(stage.end_offsets("orders"))
        before = read_profiles(stage)
        assert find_differences(stage) == []

        # when one is erased, one in the midst of what they did, and there is what is odd
        first = stage.send_erasure("u1", order_ms(99), "g1")
        for user, number, name in (("u3", 22, "g3"), ("u3", 22, "g3"), ("u3", 2, "g3-earlier"), ("nobody", 99, "g0")):
            stage.send_erasure(user, order_ms(number), name)
        stage.send("erasures", [("u2", None), ("u4", b"not JSON")])  # type: ignore[list-item]
        process_all(life, stage)

        # then they are gone, what the other did later stands alone, and everybody else is as before to the byte
        after = read_profiles(stage)
        assert find_differences(stage) == []
        assert before.keys() - after.keys() == {"user:u1"}
        assert {entity for entity in after if after[entity] != before[entity]} == {"user:u3"}
        assert stored_decisions(stage) == {f"o{n}" for n in range(40) if n % 5 != 1 and not (n % 5 == 3 and n <= 22)}
        assert [again._value.get(), bad._value.get()] == [counts[0] + 1, counts[1] + 1]
        # and that is said once, and nobody was answered twice
        assert count_confirmations(stage) == {"g1": 1, "g3": 2, "g3-earlier": 1, "g0": 1}
        said = [read_erasure_confirmation(record.value or b"") for record in stage.read_records("erased")]
        assert ErasureConfirmation(event_id="g1", user_id="u1", ts_ms=first.ts_ms) in said
        assert len(stage.read_records("dead_letters")) == 1

        # when what they did comes late, and Redis forgets everything, so that the whole log is folded again
        sent += send_orders(stage, [41, 46])
        process_all(life, stage)
        assert "o41" not in stored_decisions(stage)
        stage.redis.pipeline([("FLUSHALL",)])
        life.run_until(lambda: bool(read_profiles(stage)))
        process_all(life, stage)

        # then
        assert find_differences(stage) == []
        assert "user:u1" not in read_profiles(stage)

        # when the state is rebuilt, and somebody else erased after that
        run_rebuild(stage)
        assert serving_generation(stage) == "g1"
        assert "user:u1" not in read_profiles(stage)
        stage.send_erasure("u2", order_ms(99), "g2")
        process_all(life, stage)

    # then
    assert find_differences(stage) == []
    assert not {"user:u1", "user:u2"} & read_profiles(stage).keys()
    assert count_confirmations(stage)["g1"] == count_confirmations(stage)["g2"] == 1
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)


def test_a_death_at_any_step_brings_nobody_back(apache_stage: WorkerEnvironment) -> None:
    # given lives that each die with orders of erased people in hand, each having found one more erasure
    stage, sent = apache_stage, send_orders(apache_stage, range(30))
    covered = set[int]()
    for number, step in enumerate(STEPS):
        numbers = range(30 * (number + 1), 30 * (number + 2))
        sent += send_orders(stage, numbers)
        stage.send_erasure(f"u{number % 5}", order_ms(numbers[20]), step)
        covered |= {n for n in range(numbers[20] + 1) if n % 5 == number % 5}
        InProcessWorker(stage, step, step_events=[StepEvent(step, 2, raise_killed)], erases=True).run_until_killed()
    # when
    InProcessWorker(
        stage, "recover", step_events=[StepEvent("recover", 1, raise_killed)], erases=True
    ).run_until_killed()
    with InProcessWorker(stage, "last", erases=True) as life:
        process_all(life, stage)
    # then
    assert find_differences(stage) == []
    assert stored_decisions(stage) == {ident for ident in sent if int(ident[1:]) not in covered}
    assert count_confirmations(stage) == dict.fromkeys(STEPS, 1)
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
