"""Records that are larger than a topic takes: each is kept in part or left out, and the next order is decided."""

import random
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from confluent_kafka import Producer

from contract.messages import DEAD_LETTER_HEADER, DeadLetter, read_dead_letter, read_scored_row, to_json
from testkit.metrics import read_metric
from tests.kafka import set_topic_option
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.worker_lifecycle import InProcessWorker, WorkerThread, wait_until
from transport.records import Record
from worker.ops import metrics

LIMIT = 1_048_588  # of a topic, by default
LEGAL = b'{"x":"' + b"a" * 1_000_490 + b'"}'

LONG_ID = "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=128))  # does not compress


@pytest.fixture(params=[True, False], ids=["transactions", "acknowledged"])
def transactions(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def send(
    stage: WorkerEnvironment,
    value: bytes,
    *,
    key: bytes | None = None,
    headers: Sequence[tuple[str, bytes]] = (),
    **options: str,
) -> None:
    """Send one order as a producer of the shop may that sends large records."""
    settings = {"bootstrap.servers": stage.broker.bootstrap, "message.max.bytes": 10_000_000, **options}
    producer = Producer(settings)
    producer.produce(stage.topics.orders, value, key, headers=list(headers), partition=0)
    assert producer.flush(30) == 0


def send_order(stage: WorkerEnvironment, order_id: str, *items: str) -> None:
    send(stage, to_json(make_order(order_id, *items)))


def set_limit(stage: WorkerEnvironment, kind: str, bytes_max: int) -> None:
    set_topic_option(stage.broker.bootstrap, stage.topics.topic_name(kind), "max.message.bytes", bytes_max)


def work(stage: WorkerEnvironment) -> None:
    with InProcessWorker(stage) as worker:
        worker.process_all(stage.end_offsets("orders"))


def read_dead_letters(stage: WorkerEnvironment) -> list[tuple[Record, DeadLetter]]:
    return [
        (record, read_dead_letter(dict(record.headers)[DEAD_LETTER_HEADER]))
        for record in stage.read_records("dead_letters")
    ]


def describe_refusals(stage: WorkerEnvironment, kind: str, outcome: str) -> Callable[[], float]:
    """The number of refused records since now."""
    labels = (stage.topics.topic_name(kind), outcome)
    before = read_metric(metrics.REFUSED_RECORDS, *labels)
    return lambda: read_metric(metrics.REFUSED_RECORDS, *labels) - before


def test_a_record_larger_than_clients_send_by_default_is_kept_whole(apache_stage: WorkerEnvironment) -> None:
    # given
    send(apache_stage, LEGAL, key=b"k")
    send_order(apache_stage, "o1")
    # when
    work(apache_stage)
    # then
    assert apache_stage.is_decided_once({"o1"})
    ((record, letter),) = read_dead_letters(apache_stage)
    assert (record.key, record.value, letter.reason) == (b"k", LEGAL, "too_large")
    assert letter.value_sha256 is None


@pytest.mark.parametrize(
    ("value", "headers", "options"),
    [
        pytest.param(b"a" * (LIMIT - 100), [], {}, id="no room for the reason"),
        pytest.param(b"a" * 600_000, [("trace", b"h" * 448_400)], {}, id="large headers"),
        pytest.param(b"a", [("trace", b"h" * 1_048_400)], {}, id="headers that fill the topic's limit"),
        pytest.param(b"a" * 2_000_000, [], {"compression.type": "gzip"}, id="compressible"),
    ],
)
def test_a_record_too_large_to_keep_leaves_its_beginning_size_and_digest(
    apache_stage: WorkerEnvironment, value: bytes, headers: list[tuple[str, bytes]], options: dict[str, str]
) -> None:
    # given
    send(apache_stage, value, key=b"k", headers=headers, **options)
    send_order(apache_stage, "o1")
    replaced = describe_refusals(apache_stage, "dead_letters", "replaced")
    # when
    work(apache_stage)
    # then
    assert apache_stage.is_decided_once({"o1"})
    ((record, letter),) = read_dead_letters(apache_stage)
    assert (letter.reason, letter.partition, letter.offset) == ("too_large_to_keep", 0, 0)
    assert (letter.value_bytes, letter.value_sha256) == (len(value), sha256(value).hexdigest())
    assert record.key == b"k"
    assert value.startswith(record.value or b"")
    assert replaced() == 1


@pytest.mark.parametrize("bytes_max", [20_000, 1_000])
def test_the_limit_of_the_dead_letter_topic_may_be_lowered_at_any_time(
    apache_stage: WorkerEnvironment, transactions: bool, bytes_max: int, seed: int
) -> None:
    # given a worker that has written dead letters, and values that do not compress
    large, other = (random.Random(seed + n).randbytes(30_000) for n in range(2))
    stage = apache_stage
    stage.set_transactions(transactions)
    with InProcessWorker(stage) as worker:
        send(stage, b"bad")
        worker.process_all(stage.end_offsets("orders"))
        # when the topic takes less, and there are large records, small ones and one with a large key
        set_limit(stage, "dead_letters", bytes_max)
        for value in (large, b"a" * 300, other):
            send(stage, value)
        send(stage, b"c", key=large)
        send_order(stage, "o1")
        worker.process_all(stage.end_offsets("orders"))
    # then
    assert {decision.event_id for decision in stage.read_decisions()} == {"o1"}
    letters = {letter.offset: (record, letter) for record, letter in read_dead_letters(stage)}
    assert sorted(letters) == [0, 1, 2, 3, 4]
    assert letters[1][1].value_sha256 == sha256(large).hexdigest()
    assert letters[3][1].value_sha256 == sha256(other).hexdigest()
    assert letters[4][1].value_sha256 == sha256(b"c").hexdigest()
    assert letters[1][1].reason == letters[4][1].reason == "too_large_to_keep"


def test_a_topic_that_takes_no_dead_letter_at_all_is_named_and_waited_for(
    apache_stage: WorkerEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    # given a dead letter that cannot be written, not even in part
    stage = apache_stage
    set_limit(stage, "dead_letters", 100)
    send(stage, b"bad")
    with WorkerThread(InProcessWorker(stage)):
        wait_until(lambda: f"`{stage.topics.dead_letters}` should take a record of" in caplog.text)
        # when the topic takes records again
        set_limit(stage, "dead_letters", LIMIT)
        wait_until(lambda: read_dead_letters(stage))
    # then
    assert len(read_dead_letters(stage)) == 1


def test_a_scored_row_that_its_topic_does_not_take_is_left_out(
    apache_stage: WorkerEnvironment, transactions: bool
) -> None:
    # given an order whose row is larger than the topic takes, among others
    stage = apache_stage
    stage.set_transactions(transactions)
    set_limit(stage, "scored", 400)
    send_order(stage, "o1")
    send_order(stage, LONG_ID)
    send_order(stage, "o3")
    left_out = describe_refusals(stage, "scored", "left_out")
    # when
    work(stage)
    # then
    assert {decision.event_id for decision in stage.read_decisions()} == {"o1", LONG_ID, "o3"}
    rows = {read_scored_row(record.value or b"").event_id for record in stage.read_records("scored")}
    assert rows == {"o1", "o3"}
    assert left_out() == 1


def test_a_decision_that_its_topic_does_not_take_becomes_a_dead_letter(apache_stage: WorkerEnvironment) -> None:
    # given an order whose decision is larger than the topic takes
    stage = apache_stage
    set_limit(stage, "decisions", 360)
    send_order(stage, LONG_ID)
    send_order(stage, "o2")
    # when
    work(stage)
    # then
    assert stage.is_decided_once({"o2"})
    ((record, letter),) = read_dead_letters(stage)
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (
        "too_large_to_keep",
        stage.topics.orders,
        0,
        0,
    )
    assert LONG_ID.encode() in (record.value or b"")


def test_a_record_that_the_broker_refuses_is_replaced_and_the_others_are_not(apache_stage: WorkerEnvironment) -> None:
    # given a dead-letter topic that refuses records without a key
    stage = apache_stage
    set_topic_option(stage.broker.bootstrap, stage.topics.dead_letters, "cleanup.policy", "compact")
    send(stage, b"without a key")
    send(stage, b"with a key", key=b"k")
    send_order(stage, "o1")
    # when
    work(stage)
    # then
    assert stage.is_decided_once({"o1"})
    letters = {letter.offset: (record.key, record.value) for record, letter in read_dead_letters(stage)}
    assert letters == {0: (f"{stage.topics.orders}/0/0".encode(), b""), 1: (b"k", b"with a key")}
