"""The protocol over real servers: whatever happens in between, each order is decided once and profiles are exact."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from confluent_kafka import Producer

from contract.messages import Decision
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.ops import metrics

STEPS = ("read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache")


def signers_by_order(decisions: Iterable[Decision]) -> dict[str, set[str]]:
    """Which lives the decisions of each order are signed by."""
    signers = dict[str, set[str]]()
    for decision in decisions:
        signers.setdefault(decision.event_id, set()).add(decision.model_version)
    return signers


def read_signatures(stage: WorkerEnvironment) -> dict[str, str]:
    return {decision.event_id: decision.model_version for decision in stage.read_decisions()}


def test_whatever_step_a_worker_dies_in_each_order_is_decided_once_and_profiles_are_exact(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given lives that each die with their second batch in hand, and go on where the one before died
    stage, sent, lives = apache_stage, set[str](), list[SigningScorer]()
    for number, step in enumerate(STEPS):
        sent |= stage.send_orders(seed, 20, first=20 * number)
        lives.append(SigningScorer(f"died in {step}"))
        InProcessWorker(stage, scorer=lives[-1], step_events=[StepEvent(step, 2, raise_killed)]).run_until_killed()
    # when a last life has finished
    lives.append(SigningScorer("finished"))
    with InProcessWorker(stage, scorer=lives[-1]) as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
    assert stage.find_differences("orders") == []
    assert read_signatures(stage) == find_expected_signatures(lives)
    assert [len(life.scored) > 0 for life in lives] == [True] * len(lives), "every life should have had a batch"


def find_expected_signatures(workers: Sequence[SigningScorer]) -> dict[str, str]:
    """Who decided each order: the first that scored it, unless that life died before it could claim."""
    signatures = dict[str, str]()
    for life, step in zip(workers, [*STEPS, ""], strict=True):
        unclaimed = life.last_scored if step == "claim" else []
        signatures |= {ident: life.name for ident in life.scored if ident not in signatures and ident not in unclaimed}
    return signatures


def test_what_is_answered_and_not_merged_everywhere_is_folded_again_and_answered_no_more(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a worker that dies before it has brought up the buckets that its batches did not touch
    stage = apache_stage
    stage.send_orders(seed, 40)
    first, second = SigningScorer("first"), SigningScorer("second")
    InProcessWorker(
        stage, scorer=first, step_events=[StepEvent("commit", 4, raise_killed)], runs_periodic=False
    ).run_until_killed()
    folded = metrics.EVENTS_RECOVERED.labels("orders")._value.get()
    # when
    with InProcessWorker(stage, scorer=second) as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    answered = set(first.scored) - set(first.last_scored)
    assert metrics.EVENTS_RECOVERED.labels("orders")._value.get() == folded + len(answered) > folded
    assert not answered & set(second.scored)
    assert stage.find_differences("orders") == []


@pytest.mark.parametrize("step", ["publish", "commit"])
def test_a_transaction_that_was_ended_from_outside_is_published_anew(
    apache_stage: WorkerEnvironment, seed: int, step: str
) -> None:
    # given a broker that gives up a transaction, as it does with one that takes too long
    stage = apache_stage
    sent = stage.send_orders(seed, 30)

    def give_up() -> None:
        name = f"{stage.settings.kafka.group_prefix}-orders-0"
        Producer({"bootstrap.servers": stage.broker.bootstrap, "transactional.id": name}).init_transactions(20)

    # when
    with InProcessWorker(stage, step_events=[StepEvent(step, 2, give_up)]) as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    assert Counter(decision.event_id for decision in stage.read_decisions()) == Counter(sent)
    assert stage.find_differences("orders") == []


def test_without_transactions_a_decision_may_come_twice_and_is_then_the_same(
    broker: KafkaBroker, redis_url: str, topic_prefix: str, seed: int
) -> None:
    # given a worker that dies when its second batch is acknowledged and not committed
    stage = WorkerEnvironment(broker=broker, redis_url=redis_url, prefix=topic_prefix, transactions=False)
    sent = stage.send_orders(seed, 40)
    InProcessWorker(stage, "first", step_events=[StepEvent("commit", 2, raise_killed)]).run_until_killed()
    # when
    with InProcessWorker(stage, "second") as life:
        life.process_all(stage.end_offsets("orders"))
    # then
    decisions = stage.read_decisions()
    assert {decision.event_id for decision in decisions} == sent
    assert len(decisions) > len(sent)
    assert all(len(copies) == 1 for copies in signers_by_order(decisions).values())
    assert stage.find_differences("orders") == []
    stage.close()
