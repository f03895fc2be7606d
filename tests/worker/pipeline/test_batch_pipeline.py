"""The pipeline over real servers: after any crash each order is decided once and profiles are exact."""

from collections.abc import Iterable, Sequence

import pytest
from confluent_kafka import Producer

from contract.messages import Decision
from testkit.metrics import read_metric
from tests.conftest import KafkaBroker
from tests.worker.environment import WorkerEnvironment
from tests.worker.signing_scorer import SigningScorer
from tests.worker.worker_lifecycle import InProcessWorker, StepEvent, raise_killed
from worker.ops import metrics

STEPS = ("read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache")


def signers_by_order(decisions: Iterable[Decision]) -> dict[str, set[str]]:
    """The signatures of each order's decisions."""
    signers = dict[str, set[str]]()
    for decision in decisions:
        signers.setdefault(decision.event_id, set()).add(decision.model_version)
    return signers


def read_signatures(stage: WorkerEnvironment) -> dict[str, str]:
    return {decision.event_id: decision.model_version for decision in stage.read_decisions()}


def test_after_a_crash_in_any_step_each_order_is_decided_once_and_profiles_are_exact(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given runs that each die with their second batch in flight, and start where the one before died
    stage, sent, scorers = apache_stage, set[str](), list[SigningScorer]()
    for number, step in enumerate(STEPS):
        sent |= stage.send_orders(seed, 20, first=20 * number)
        scorers.append(SigningScorer(f"died in {step}"))
        InProcessWorker(stage, scorer=scorers[-1], step_events=[StepEvent(step, 2, raise_killed)]).run_until_killed()
    # when a last run has finished
    scorers.append(SigningScorer("finished"))
    with InProcessWorker(stage, scorer=scorers[-1]) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []
    assert read_signatures(stage) == find_expected_signatures(scorers)
    assert all(scorer.scored for scorer in scorers), "every run should have had a batch"


def find_expected_signatures(scorers: Sequence[SigningScorer]) -> dict[str, str]:
    """The first scorer of each order, except for a run that died before it could claim."""
    signatures = dict[str, str]()
    for scorer, step in zip(scorers, [*STEPS, ""], strict=True):
        unclaimed = scorer.last_scored if step == "claim" else []
        signatures |= {
            ident: scorer.name for ident in scorer.scored if ident not in signatures and ident not in unclaimed
        }
    return signatures


def test_answered_events_that_are_not_merged_everywhere_are_folded_again_and_not_answered(
    apache_stage: WorkerEnvironment, seed: int
) -> None:
    # given a worker that dies before it has advanced the buckets that its batches did not touch
    stage = apache_stage
    stage.send_orders(seed, 40)
    first, second = SigningScorer("first"), SigningScorer("second")
    InProcessWorker(
        stage, scorer=first, step_events=[StepEvent("commit", 4, raise_killed)], runs_periodic=False
    ).run_until_killed()
    recovered = read_metric(metrics.EVENTS_RECOVERED, "orders")
    # when
    with InProcessWorker(stage, scorer=second) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    answered = set(first.scored) - set(first.last_scored)
    assert read_metric(metrics.EVENTS_RECOVERED, "orders") == recovered + len(answered) > recovered
    assert not answered & set(second.scored)
    assert stage.find_differences("orders") == []


@pytest.mark.parametrize("step", ["publish", "commit"])
def test_a_transaction_that_the_broker_aborted_is_published_again(
    apache_stage: WorkerEnvironment, seed: int, step: str
) -> None:
    # given a broker that aborts a transaction, as it does with one that takes too long
    stage = apache_stage
    sent = stage.send_orders(seed, 30)

    def fence_producer() -> None:
        name = f"{stage.settings.kafka.group_prefix}-orders-0"
        Producer({"bootstrap.servers": stage.broker.bootstrap, "transactional.id": name}).init_transactions(20)

    # when
    with InProcessWorker(stage, step_events=[StepEvent(step, 2, fence_producer)]) as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert stage.is_decided_once(sent)
    assert stage.find_differences("orders") == []


def test_without_transactions_copies_of_a_decision_are_identical(
    broker: KafkaBroker, redis_url: str, topic_prefix: str, seed: int
) -> None:
    # given a worker that dies when its second batch is acknowledged and not committed
    stage = WorkerEnvironment(broker=broker, redis_url=redis_url, prefix=topic_prefix, transactions=False)
    sent = stage.send_orders(seed, 40)
    InProcessWorker(stage, "first", step_events=[StepEvent("commit", 2, raise_killed)]).run_until_killed()
    # when
    with InProcessWorker(stage, "second") as worker:
        worker.process_all(stage.end_offsets("orders"))
    # then
    decisions = stage.read_decisions()
    assert {decision.event_id for decision in decisions} == sent
    assert len(decisions) > len(sent)
    assert all(len(copies) == 1 for copies in signers_by_order(decisions).values())
    assert stage.find_differences("orders") == []
    stage.close()
