"""Why a worker stands still, from a snapshot of its thread and what Kafka said last."""

import threading
import time
from collections.abc import Iterator

import pytest

from transport.records import TopicPartition
from worker.ops.denied_rights import Grants
from worker.ops.retry import WAITS, Wait
from worker.ops.steps import Step
from worker.probes.blocks import Block, Reason, explain_missing_topics
from worker.probes.diagnosis import RECOVERY_S, Diagnosis, WatchedWorker
from worker.probes.kafka_observer import KafkaView
from worker.probes.lag import PartitionLag
from worker.probes.progress import Pause, Progress

ORDERS, PRODUCTS = TopicPartition("shop.orders", 0), TopicPartition("shop.products", 0)
TOPICS = {"orders": "shop.orders", "decisions": "shop.decisions"}


class Case:
    """A worker of this thread whose partition of orders stands at 5 of 9 since 100 s ago, and what Kafka says."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()
        self.step = Step.IDLE
        self.progress = Progress(step=lambda: self.step)
        self.progress.publish({ORDERS: 5}, {ORDERS: 9})
        self.view = KafkaView(answered_s=self.now_s, partition_counts=dict.fromkeys(TOPICS.values(), 4))
        self.lag = {ORDERS: PartitionLag(5, 9, self.now_s - 100)}
        worker = WatchedWorker(
            group="shop-orders",
            grants=Grants("kafka:9092", "shop", "shopstream"),
            topics=TOPICS,
            followed_topics={"products": "shop.products"},
            new_partitions=4,
            progress=self.progress,
            check_topics=lambda partition_counts: None,
        )
        self.diagnosis = Diagnosis(worker)

    def wait_for_server(self, error: str, since_s: float | None = None) -> None:
        WAITS[threading.get_ident(), "test"] = Wait(self.now_s - 50 if since_s is None else since_s, error)

    def find(self) -> Block:
        (block,) = self.diagnosis.find_partition_blocks(self.lag, self.view, self.now_s)
        return block


@pytest.fixture
def case() -> Iterator[Case]:
    yield Case()
    WAITS.clear()


def test_a_partition_at_its_last_stable_offset_waits_for_a_transaction_whatever_else_waits(case: Case) -> None:
    case.view.stable_ends = {ORDERS: 5}
    case.wait_for_server("Redis should answer.")

    block = case.find()

    assert (block.reason, block.since_s) == (Reason.OPEN_TRANSACTION, case.now_s - 100)
    assert block.text.startswith("shop.orders[0] stands at 5 of 9 for 100 s.")
    assert "abort --topic shop.orders --partition 0 --start-offset 5" in block.text


@pytest.mark.parametrize(
    ("step", "error", "kafka_error", "reason"),
    [
        (Step.CLAIM, "Redis 127.0.0.1:6379 should answer. Found: timeout", "", Reason.REDIS),
        (Step.PUBLISH, "Kafka should acknowledge a batch. Found 1 records waiting.", "", Reason.UNWRITABLE),
        (Step.PUBLISH, "Kafka should acknowledge a batch. Found 1 records waiting.", "no broker", Reason.KAFKA),
        (Step.RECOVER, "Kafka should return committed offsets. Found: timeout", "", Reason.KAFKA),
    ],
)
def test_a_wait_is_told_by_its_error_and_by_what_kafka_answers_to_others(
    case: Case, step: Step, error: str, kafka_error: str, reason: Reason
) -> None:
    case.step, case.view.error = step, kafka_error
    case.wait_for_server(error)

    assert case.find().reason == reason


@pytest.mark.parametrize(
    ("error", "grant"),
    [
        ("Kafka should take records of shop.decisions. Found: Broker: Topic authorization failed", "--topic shop.dec"),
        ("Kafka should let a member in. Found: Broker: Group authorization failed", "--group shopstream"),
        ("Found: Broker: Transactional Id authorization failed", "--transactional-id shopstream"),
        ("Found: Broker: Cluster authorization failed", "--operation IdempotentWrite --cluster"),
    ],
)
def test_a_wait_for_a_right_names_it_and_the_command_that_grants_it(case: Case, error: str, grant: str) -> None:
    case.step, case.view.lacking = Step.PUBLISH, {"shop.decisions": ["WRITE"]}
    case.wait_for_server(error)

    block = case.find()

    assert block.reason == Reason.DENIED
    assert "kafka-acls.sh --bootstrap-server kafka:9092 --add --allow-principal User:shop --operation" in block.text
    assert grant in block.text


def test_a_group_that_is_denied_makes_a_worker_unfit_until_it_is_allowed(case: Case) -> None:
    case.progress.denial = "FindCoordinator response error: Group authorization failed."
    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)
    assert (block.reason, block.is_unfit) == (Reason.DENIED, True)
    assert "--operation Read --group shopstream --resource-pattern-type prefixed" in block.text

    case.progress.denial = ""
    assert list(case.diagnosis.find_process_blocks(case.view, case.now_s)) == []


def test_a_partition_that_the_user_may_not_read_names_the_right(case: Case) -> None:
    case.view.lacking = {"shop.orders": ["READ"], "shop.decisions": ["WRITE"]}

    block = case.find()

    assert block.reason == Reason.DENIED
    assert block.text.endswith("--allow-principal User:shop --operation Read --topic shop.orders")


def test_a_topic_that_the_user_may_not_see_is_not_taken_for_one_that_does_not_exist(case: Case) -> None:
    case.view.partition_counts, case.view.lacking = {"shop.orders": 4}, {"shop.decisions": ["READ", "WRITE"]}

    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)

    assert (block.reason, block.is_unfit) == (Reason.DENIED, True)
    assert "--allow-principal User:shop --operation Read --operation Write --topic shop.decisions" in block.text
    assert "--create" not in block.text


def test_a_write_that_waits_for_a_topic_which_does_not_exist_names_it(case: Case) -> None:
    case.step, case.view.partition_counts = Step.PUBLISH, {"shop.orders": 4}
    case.wait_for_server("Kafka should acknowledge a batch. Found 1 records waiting.")

    assert case.find().reason == Reason.TOPIC_MISSING
    assert "`shop.decisions` (topics.decisions)" in case.find().text
    (unfit,) = case.diagnosis.find_process_blocks(case.view, case.now_s)
    assert (unfit.reason, unfit.is_unfit, unfit.stands) == (Reason.TOPIC_MISSING, True, False)


def test_a_worker_is_not_ready_while_its_group_assigns_a_partition_that_does_not_exist(case: Case) -> None:
    case.progress.publish({ORDERS: 5}, {ORDERS: 5}, missing={TopicPartition("shop.orders", 4)})

    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)

    assert (block.reason, block.since_s, block.is_unfit, block.stands) == (Reason.REBALANCE, case.now_s, True, False)
    assert "The group shop-orders should assign partitions that exist. Found shop.orders[4]" in block.text
    case.progress.publish({ORDERS: 5}, {ORDERS: 5})
    assert not list(case.diagnosis.find_process_blocks(case.view, case.now_s))


def test_a_step_that_does_not_end_is_named_with_its_line_of_code(case: Case) -> None:
    # given a worker's thread that is inside one step for long
    case.step = Step.MERGE
    assert case.progress.latest is not None
    case.progress.latest = case.progress.latest._replace(at_s=case.now_s - 60)
    case.progress.worked_s = case.now_s - 40
    # then the partition and the process say so
    block = case.find()
    assert block.reason == Reason.FROZEN_STEP
    assert "The step `merge` should have ended." in block.text
    assert (
        "tests/worker/probes/test_diagnosis.py" in case.progress.locate() or "worker/probes" in case.progress.locate()
    )
    (frozen,) = case.diagnosis.find_process_blocks(case.view, case.now_s)
    assert (frozen.reason, frozen.since_s, frozen.stands) == (Reason.FROZEN_STEP, case.now_s - 40, True)


def test_partitions_outside_the_group_are_a_follower_that_is_behind(case: Case) -> None:
    case.lag = {PRODUCTS: PartitionLag(0, 3, case.now_s - 100)}

    assert case.find().reason == Reason.FOLLOWER


def test_repeated_recoveries_without_advance_are_lost_state(case: Case) -> None:
    # given a partition that stands, with one recovery so far
    case.progress.publish({ORDERS: 5}, {ORDERS: 9}, recoveries=1)
    assert case.find().reason == Reason.UNREAD
    # when the worker recovers again and again
    case.progress.publish({ORDERS: 5}, {ORDERS: 9}, recoveries=3)
    assert case.find().reason == Reason.LOST_STATE
    # when that was a while ago, and the client returns no record
    case.now_s += RECOVERY_S
    assert case.find().reason == Reason.UNREAD
    case.progress.publish({ORDERS: 5}, {ORDERS: 9}, recoveries=4)
    assert case.find().reason == Reason.LOST_STATE
    # when the partition has advanced
    case.lag[ORDERS].since_s = case.now_s - 1
    # then
    assert case.find().reason == Reason.UNREAD


def test_a_rebalance_stops_only_a_worker_without_partitions(case: Case) -> None:
    case.view.rebalancing_since_s = case.now_s - 70
    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)
    assert (block.reason, block.stands) == (Reason.REBALANCE, False)

    case.progress.publish({}, {})
    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)
    assert (block.reason, block.stands, "shop-orders" in block.text) == (Reason.REBALANCE, True, True)


def test_a_worker_that_starts_waits_for_a_server_without_being_dead(case: Case) -> None:
    case.progress.latest = None
    case.wait_for_server("Redis should answer.")

    (block,) = case.diagnosis.find_process_blocks(case.view, case.now_s)

    assert (block.reason, block.stands, block.since_s) == (Reason.REDIS, False, case.now_s - 50)


def test_a_missing_topic_of_a_map_is_not_said_to_be_created_by_the_worker() -> None:
    own = explain_missing_topics({"orders": "shop.orders"}, "localhost:9092", 4)
    of_map = explain_missing_topics({"map.old.topics[0]": "old.orders"}, "localhost:9092", 4)
    # then
    assert "Create them: python -m worker topics, or kafka-topics.sh" in own
    assert "worker topics" not in of_map
    assert "Leave `topics` out of a map that reads files only, or create them: kafka-topics.sh" in of_map


SCORED = TopicPartition("shop.scored", 0)


@pytest.mark.parametrize(
    ("pause", "end_of_slowest", "reason", "text"),
    [
        (Pause(SCORED), 7, Reason.STREAM_TIME, "should have read shop.scored[0] up to the same time"),
        (Pause(SCORED, is_at_end=True), 3, Reason.STREAM_TIME, "should have read shop.scored[0]"),
        (Pause(SCORED), 3, Reason.UNREAD, "should return that shop.scored[0] is at its end"),
        (Pause(), 3, Reason.TOPIC_UNFIT, "as many partitions"),
    ],
)
def test_a_paused_partition_names_the_one_that_it_waits_for(
    case: Case, pause: Pause, end_of_slowest: int, reason: Reason, text: str
) -> None:
    case.progress.publish({ORDERS: 5, SCORED: 3}, {ORDERS: 9, SCORED: end_of_slowest}, paused={ORDERS: pause})
    case.lag[SCORED] = PartitionLag(3, end_of_slowest, case.now_s)

    block, *_ = case.diagnosis.find_partition_blocks(case.lag, case.view, case.now_s)

    assert (block.reason, block.since_s) == (reason, case.now_s - 100)
    assert text in block.text


def test_a_paused_partition_waits_for_the_same_server_as_the_worker(case: Case) -> None:
    case.progress.publish({ORDERS: 5}, {ORDERS: 9}, paused={ORDERS: Pause(SCORED)})
    case.wait_for_server("Redis 127.0.0.1:6379 should answer. Found: timeout")

    assert case.find().reason == Reason.REDIS
