"""A producer whose client is replaced sends each record once, and knows where it is."""

import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from devservers.apache_kafka import ApacheKafka
from testkit.environment.kafka_log import RecordPosition
from testkit.environment.steady_producer import SteadyProducer
from tests.conftest import KafkaBroker
from tests.kafka import read_topics
from tests.polling import wait_until

FLUSH_S = 60.0
SESSION_S = 2.0  # of a broker of `devservers` with its controller


class SentRecords:
    """Numbered records, most of them equal but for their time, and the positions that the producer reports."""

    def __init__(
        self, broker: KafkaBroker, topic: str, *, settings: Mapping[str, Any] | None = None, **options: float
    ) -> None:
        self.producer = SteadyProducer(bootstrap=broker.bootstrap, settings=settings, **options)
        self.broker, self.topic = broker, topic
        self.count = 0
        self.positions: list[RecordPosition] = []

    def send(self, count: int) -> None:
        for number in range(count):
            value = str(number % 3).encode()
            self.producer.produce(self.topic, value, f"k{number % 5}", on_taken=self.positions.append)
        self.count += count

    def has_other_client(self) -> bool:
        self.producer.poll()
        return self.producer.clients > 1

    def has_given_up(self) -> bool:
        """Whether the client holds no record any more."""
        self.producer._client.poll(0)
        return not len(self.producer._client)

    def refuses_records(self) -> bool:
        """Whether the client takes no record of the topic, since it saw it missing."""
        client = self.producer._client
        client.list_topics(timeout=FLUSH_S)
        try:
            client.produce(self.topic, b"probe")
        except KafkaException as error:
            return error.args[0].code() == KafkaError._UNKNOWN_TOPIC  # type: ignore[no-any-return]
        return False

    def check(self) -> None:
        """Each is on the topic once, at a position that was reported."""
        records = read_topics(self.broker.bootstrap, self.topic)
        assert len(records) == self.count
        assert sorted(self.positions) == sorted(RecordPosition(*r.topic_partition, r.offset) for r in records)
        assert self.producer.errors == []


def test_records_are_reported_at_their_positions(broker: KafkaBroker, topic: str) -> None:
    sent = SentRecords(broker, topic)
    sent.send(50)

    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()
    assert sent.producer.clients == 1
    sent.producer.close()


def test_a_client_without_brokers_is_replaced_and_every_record_is_sent_once(
    own_kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # given a producer whose acknowledgements are lost while Kafka takes some of its records
    own_kafka.create_topics({"out": 4})
    sent = SentRecords(own_kafka, "out", silence_s=0.3)
    sent.send(10)
    assert sent.producer.flush(FLUSH_S) == 0
    with monkeypatch.context() as patch:
        patch.setattr(sent.producer, "_on_delivery", lambda *_: None)
        sent.send(random.Random(seed).randrange(5, 40))
        wait_until(lambda: len(read_topics(own_kafka.bootstrap, "out")) == sent.count)
        own_kafka.pause()
        sent.send(20)
        # when the broker answers others again
        own_kafka.resume()
        wait_until(sent.has_other_client)
    # then
    sent.send(10)
    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()
    sent.producer.close()


def test_records_that_time_out_are_sent_by_another_client(own_kafka: ApacheKafka) -> None:
    # given records that the client gives up while the broker is paused
    own_kafka.create_topics({"out": 4})
    sent = SentRecords(own_kafka, "out", settings={"message.timeout.ms": 1_000})
    sent.send(10)
    assert sent.producer.flush(FLUSH_S) == 0
    own_kafka.pause()
    sent.send(20)
    wait_until(sent.has_given_up)
    # when
    own_kafka.resume()
    # then
    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()
    assert sent.producer.clients > 1
    sent.producer.close()


def test_a_producer_outlives_a_broker_that_is_fenced_by_its_own_controller(own_kafka: ApacheKafka) -> None:
    # given
    own_kafka.create_topics({"out": 4})
    sent = SentRecords(own_kafka, "out", silence_s=3.0)
    sent.send(10)
    # when the broker is paused for longer than its session
    own_kafka.pause()
    sent.send(10)
    until_s = time.monotonic() + 2 * SESSION_S
    wait_until(lambda: time.monotonic() > until_s)
    own_kafka.resume()
    # then
    assert sent.producer.flush(FLUSH_S) == 0
    own_kafka.wait_until_steady()
    sent.send(10)
    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()
    sent.producer.close()


def test_records_for_a_partition_that_vanished_go_to_another_one(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given: a client that knows three partitions
    topic = f"{topic_prefix}shrinking"
    apache_kafka.create_topics({topic: 3})
    sent = SentRecords(apache_kafka, topic)
    sent.send(20)
    assert sent.producer.flush(FLUSH_S) == 0

    # when
    apache_kafka.delete_topics(topic)
    apache_kafka.create_topics({topic: 1})
    sent.count, sent.positions = 0, []
    sent.send(20)

    # then
    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()


def test_records_for_a_topic_that_was_seen_missing_are_sent_once_it_exists(
    apache_kafka: ApacheKafka, topic_prefix: str
) -> None:
    # given: a client that learned of the topic's absence
    topic = f"{topic_prefix}recreated"
    apache_kafka.create_topics({topic: 1})
    sent = SentRecords(apache_kafka, topic, settings={"topic.metadata.propagation.max.ms": 0})
    sent.send(20)
    assert sent.producer.flush(FLUSH_S) == 0
    apache_kafka.delete_topics(topic)
    wait_until(lambda: sent.refuses_records())

    # when
    apache_kafka.create_topics({topic: 1})
    sent.count, sent.positions = 0, []
    sent.send(20)

    # then
    assert sent.producer.flush(FLUSH_S) == 0
    sent.check()
    sent.producer.close()
