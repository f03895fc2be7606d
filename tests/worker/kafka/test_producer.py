"""Transactions whose outcome stays unknown because the broker goes away while they are committed."""

import threading
from pathlib import Path

import pytest

from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.kafka import read_topics
from tests.polling import wait_until
from worker.group.consumer import GroupConsumer
from worker.kafka import producer_clients
from worker.kafka.outgoing import OutgoingRecord
from worker.kafka.producer import TransactionalProducer
from worker.ops.retry import Retry
from worker.ops.steps import Step, StepMarker
from worker.pipeline.membership import BatchRevoked

TIMEOUT_S = 60.0


class PausingMarker(StepMarker):
    """Pauses the broker when the first commit begins."""

    def __init__(self, kafka: ApacheKafka) -> None:
        super().__init__()
        self.kafka, self.is_armed = kafka, True

    def __call__(self, step: str) -> None:
        super().__call__(step)
        if step == Step.COMMIT and self.is_armed:
            self.is_armed = False
            self.kafka.pause()
            wait_until(lambda: is_stopped(self.kafka.process.pid or 0))


def is_stopped(pid: int) -> bool:
    """Whether every thread of a process is suspended."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


@pytest.mark.apache_kafka
def test_a_batch_revoked_during_its_commit_can_be_dropped_and_the_next_one_published(
    own_kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a producer whose first commit is interrupted by a revocation, and times out
    monkeypatch.setattr(producer_clients, "TIMEOUT_S", 1.0)
    own_kafka.create_topics({"out": 1})
    kafka = KafkaSettings(bootstrap_servers=own_kafka.bootstrap, session_timeout_ms=6_000)
    marker, stop = PausingMarker(own_kafka), threading.Event()

    revoked: list[bool] = []

    def revoke() -> None:
        if not marker.is_armed and not revoked:
            revoked.append(True)
            raise BatchRevoked("A batch should stay. Found it revoked.")

    retry = Retry(stop, on_wait=revoke)
    consumer = GroupConsumer(kafka=kafka, group="g", instance="0")
    producer = TransactionalProducer(kafka=kafka, transactional_id="t", retry=retry, step_marker=marker)
    with pytest.raises(BatchRevoked):
        producer.publish([OutgoingRecord("out", "k", b"first")], {}, consumer)
    # when
    own_kafka.resume()
    timer = threading.Timer(TIMEOUT_S, stop.set)
    timer.start()
    producer.abort()
    producer.publish([OutgoingRecord("out", "k", b"second")], {}, consumer)
    # then
    timer.cancel()
    assert [record.value for record in read_topics(own_kafka.bootstrap, "out")][-1] == b"second"
    producer.close()
    consumer.close()


@pytest.mark.apache_kafka
def test_a_batch_that_waits_for_a_topic_that_does_not_exist_names_it(
    apache_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a batch for a topic that exists and one that does not
    monkeypatch.setattr(producer_clients, "TIMEOUT_S", 1.0)
    present, missing = f"{topic_prefix}present", f"{topic_prefix}missing"
    apache_kafka.create_topics({present: 1})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)

    def create_once_named() -> None:
        if f"no topic `{missing}`:" in caplog.text:
            apache_kafka.create_topics({missing: 1})

    retry = Retry(threading.Event(), on_wait=create_once_named)
    consumer = GroupConsumer(kafka=kafka, group=topic_prefix, instance="0")
    producer = TransactionalProducer(kafka=kafka, transactional_id=topic_prefix, retry=retry, step_marker=StepMarker())
    # when
    producer.publish([OutgoingRecord(topic, "k", b"value") for topic in (present, missing)], {}, consumer)
    # then
    assert f"`{present}`" not in caplog.text
    assert [record.value for record in read_topics(kafka.bootstrap_servers, present, missing)] == [b"value"] * 2
    producer.close()
    consumer.close()
