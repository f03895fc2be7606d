"""The protocol over real servers: whatever happens in between, each order is decided once and profiles are exact."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from confluent_kafka import Producer

from contract.rows import Decision
from tests.conftest import Broker
from tests.worker.lives import Fate, Life, die
from tests.worker.signing import Signing
from tests.worker.stage import Stage
from worker import metrics

STEPS = ("read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache")


def signed_by(decisions: Iterable[Decision]) -> dict[str, set[str]]:
    """Which lives the decisions of each order are signed by."""
    found = dict[str, set[str]]()
    for decision in decisions:
        found.setdefault(decision.event_id, set()).add(decision.model_version)
    return found


def signatures(stage: Stage) -> dict[str, str]:
    return {decision.event_id: decision.model_version for decision in stage.decisions()}


def test_whatever_step_a_worker_dies_in_each_order_is_decided_once_and_profiles_are_exact(
    apache_stage: Stage, seed: int
) -> None:
    # given lives that each die with their second batch in hand, and go on where the one before died
    stage, sent, lives = apache_stage, set[str](), list[Signing]()
    for number, step in enumerate(STEPS):
        sent |= stage.send_orders(seed, 20, first=20 * number)
        lives.append(Signing(f"died in {step}"))
        Life(stage, scorer=lives[-1], fates=[Fate(step, 2, die)]).live_and_die()
    # when a last life has finished
    lives.append(Signing("finished"))
    with Life(stage, scorer=lives[-1]) as life:
        life.finish(stage.ends("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)
    assert stage.differences("orders") == []
    assert signatures(stage) == expected_signatures(lives)
    assert [len(life.scored) > 0 for life in lives] == [True] * len(lives), "every life should have had a batch"


def expected_signatures(lives: Sequence[Signing]) -> dict[str, str]:
    """Who decided each order: the first that scored it, unless that life died before it could claim."""
    found = dict[str, str]()
    for life, step in zip(lives, [*STEPS, ""], strict=True):
        unclaimed = life.last if step == "claim" else []
        found |= {ident: life.name for ident in life.scored if ident not in found and ident not in unclaimed}
    return found


def test_what_is_answered_and_not_merged_everywhere_is_folded_again_and_answered_no_more(
    apache_stage: Stage, seed: int
) -> None:
    # given a worker that dies before it has brought up the buckets that its batches did not touch
    stage = apache_stage
    stage.send_orders(seed, 40)
    first, second = Signing("first"), Signing("second")
    Life(stage, scorer=first, fates=[Fate("commit", 4, die)], keeps_house=False).live_and_die()
    folded = metrics.FOLDED_ONLY.labels("orders")._value.get()
    # when
    with Life(stage, scorer=second) as life:
        life.finish(stage.ends("orders"))
    # then
    answered = set(first.scored) - set(first.last)
    assert metrics.FOLDED_ONLY.labels("orders")._value.get() == folded + len(answered) > folded
    assert not answered & set(second.scored)
    assert stage.differences("orders") == []


@pytest.mark.parametrize("step", ["publish", "commit"])
def test_a_transaction_that_was_ended_from_outside_is_published_anew(apache_stage: Stage, seed: int, step: str) -> None:
    # given a broker that gives up a transaction, as it does with one that takes too long
    stage = apache_stage
    sent = stage.send_orders(seed, 30)

    def give_up() -> None:
        name = f"{stage.settings.kafka.group_prefix}-orders-0"
        Producer({"bootstrap.servers": stage.broker.bootstrap, "transactional.id": name}).init_transactions(20)

    # when
    with Life(stage, fates=[Fate(step, 2, give_up)]) as life:
        life.finish(stage.ends("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.decisions()) == Counter(sent)
    assert stage.differences("orders") == []


def test_without_transactions_a_decision_may_come_twice_and_is_then_the_same(
    broker: Broker, redis_url: str, topic_prefix: str, seed: int
) -> None:
    # given a worker that dies when its second batch is acknowledged and not committed
    stage = Stage(broker=broker, redis_url=redis_url, prefix=topic_prefix, transactions=False)
    sent = stage.send_orders(seed, 40)
    Life(stage, "first", fates=[Fate("commit", 2, die)]).live_and_die()
    # when
    with Life(stage, "second") as life:
        life.finish(stage.ends("orders"))
    # then
    decisions = stage.decisions()
    assert {decision.event_id for decision in decisions} == sent
    assert len(decisions) > len(sent)
    assert all(len(copies) == 1 for copies in signed_by(decisions).values())
    assert stage.differences("orders") == []
    stage.close()
