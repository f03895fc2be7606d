"""Forgetting over real servers: what an erasure covers is gone, stays gone, and nothing else is touched."""

import time
from collections import Counter
from collections.abc import Iterable

from contract.rows import Erased, read_erased, to_json
from contract.slices import Slices
from tests.worker.lives import Fate, Life, die
from tests.worker.shop import order
from tests.worker.stage import Stage
from tests.worker.test_rebuild import rebuilt, serving
from worker import metrics

BEGAN_MS = time.time_ns() // 1_000_000 - 3_600_000
STEPS = ("read", "claim", "publish", "commit", "merge", "cache")


def at(number: int) -> int:
    """When an order was placed: a second after the one before it."""
    return BEGAN_MS + number * 1_000


def send(stage: Stage, numbers: Iterable[int]) -> list[str]:
    """Orders of five users, by turns, on two devices."""
    orders = [order(f"o{n}", user=f"u{n % 5}", device=f"d{n % 2}", card=f"c{n % 5}", ts_ms=at(n)) for n in numbers]
    stage.send("orders", [(one.user_id, to_json(one)) for one in orders])
    return [one.event_id for one in orders]


def held(stage: Stage) -> dict[str, Slices]:
    """Every profile in Redis."""
    found = stage.profiles().scan(lambda _: True)
    return {key.partition("}:")[2]: slices for key, slices in found if slices}


def wrong(stage: Stage) -> list[str]:
    """Where Redis is not, to the byte, what a clean pass that knows the erasures gives; also what is too much."""
    clean, found = stage.clean_pass("orders").slices, held(stage)
    return [*stage.differences("orders"), *sorted(found.keys() - clean.keys())]


def decided(stage: Stage) -> set[str]:
    """Orders whose decisions Redis holds."""
    (keys,) = stage.redis.pipeline([("KEYS", f"{stage.prefix}decision:*")])
    return {key.decode().rpartition(":")[2] for key in keys}


def confirmed(stage: Stage) -> Counter[str]:
    """How often each erasure was confirmed, among what readers of committed records see."""
    return Counter(read_erased(record.value or b"").event_id for record in stage.read("erased"))


def finish(life: Life, stage: Stage) -> None:
    """Work until all orders are answered and remembered, and all erasures confirmed."""
    orders, erasures = stage.ends("orders"), stage.ends("erasures")
    committed = life.positions.committed
    life.work_until(lambda: all(committed.get(place, 0) >= end for place, end in erasures.items()))
    life.finish(orders)


def test_an_erased_person_is_gone_and_stays_gone_over_a_replay_and_a_rebuild(apache_stage: Stage) -> None:
    # given a worker that has folded it all
    stage = apache_stage
    sent = send(stage, range(40))
    again, bad = metrics.RECOVERIES.labels("FoldAgain"), metrics.BAD_ERASURES.labels("not_json")
    counts = [again._value.get(), bad._value.get()]
    with Life(stage, forgets=True) as life:
        life.finish(stage.ends("orders"))
        before = held(stage)
        assert wrong(stage) == []

        # when one is erased, one in the midst of what they did, and there is what is odd
        first = stage.erase("u1", at(99), "g1")
        for user, number, name in (("u3", 22, "g3"), ("u3", 22, "g3"), ("u3", 2, "g3-earlier"), ("nobody", 99, "g0")):
            stage.erase(user, at(number), name)
        stage.send("erasures", [("u2", None), ("u4", b"not JSON")])  # type: ignore[list-item]
        finish(life, stage)

        # then they are gone, what the other did later stands alone, and everybody else is as before to the byte
        after = held(stage)
        assert wrong(stage) == []
        assert before.keys() - after.keys() == {"user:u1"}
        assert {entity for entity in after if after[entity] != before[entity]} == {"user:u3"}
        assert decided(stage) == {f"o{n}" for n in range(40) if n % 5 != 1 and not (n % 5 == 3 and n <= 22)}
        assert [again._value.get(), bad._value.get()] == [counts[0] + 1, counts[1] + 1]
        # and that is said once, and nobody was answered twice
        assert confirmed(stage) == {"g1": 1, "g3": 2, "g3-earlier": 1, "g0": 1}
        said = [read_erased(record.value or b"") for record in stage.read("erased")]
        assert Erased(event_id="g1", user_id="u1", ts_ms=first.ts_ms) in said
        assert len(stage.read("dead_letters")) == 1

        # when what they did comes late, and Redis forgets everything, so that the whole log is folded again
        sent += send(stage, [41, 46])
        finish(life, stage)
        assert "o41" not in decided(stage)
        stage.redis.pipeline([("FLUSHALL",)])
        life.work_until(lambda: bool(held(stage)))
        finish(life, stage)

        # then
        assert wrong(stage) == []
        assert "user:u1" not in held(stage)

        # when the state is rebuilt, and somebody else erased after that
        rebuilt(stage)
        assert serving(stage) == "g1"
        assert "user:u1" not in held(stage)
        stage.erase("u2", at(99), "g2")
        finish(life, stage)

    # then
    assert wrong(stage) == []
    assert not {"user:u1", "user:u2"} & held(stage).keys()
    assert confirmed(stage)["g1"] == confirmed(stage)["g2"] == 1
    assert Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)


def test_a_death_at_any_step_brings_nobody_back(apache_stage: Stage) -> None:
    # given lives that each die with orders of erased people in hand, each having found one more erasure
    stage, sent = apache_stage, send(apache_stage, range(30))
    covered = set[int]()
    for number, step in enumerate(STEPS):
        numbers = range(30 * (number + 1), 30 * (number + 2))
        sent += send(stage, numbers)
        stage.erase(f"u{number % 5}", at(numbers[20]), step)
        covered |= {n for n in range(numbers[20] + 1) if n % 5 == number % 5}
        Life(stage, step, fates=[Fate(step, 2, die)], forgets=True).live_and_die()
    # when
    Life(stage, "recover", fates=[Fate("recover", 1, die)], forgets=True).live_and_die()
    with Life(stage, "last", forgets=True) as life:
        finish(life, stage)
    # then
    assert wrong(stage) == []
    assert decided(stage) == {ident for ident in sent if int(ident[1:]) not in covered}
    assert confirmed(stage) == dict.fromkeys(STEPS, 1)
    assert Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)
