"""Reading begins where a partition was sought, also if the client goes on elsewhere."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.polling import wait_until
from tests.worker.group.test_consumer import StaticAssignment
from transport.records import TopicPartition
from worker.group.confirmed_starts import ConfirmedStarts
from worker.group.consumer import GroupConsumer

PARTITION = TopicPartition("orders", 0)
FLUSH_S = 60.0


class SkippingClient:
    """A client of which every other seek goes to a later offset."""

    def __init__(self, client: Any) -> None:
        self._client, self.seeks = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def seek(self, partition: KafkaPartition) -> None:
        self.seeks += 1
        skipped = 3 if self.seeks % 2 else 0
        self._client.seek(KafkaPartition(partition.topic, partition.partition, partition.offset + skipped))


@pytest.fixture
def consumer(apache_kafka: KafkaBroker, topic_prefix: str) -> Iterator[GroupConsumer]:
    """A member that has read ten records of one partition."""
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 1})
    produce(apache_kafka, topic, [range(10)])
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    consumer = GroupConsumer(kafka=kafka, group=topic_prefix, instance="0")
    consumer.subscribe([topic], StaticAssignment())
    assert read_values(consumer, 10) == list(range(10))
    yield consumer
    consumer.close()


def produce(broker: KafkaBroker, topic: str, transactions: list[range]) -> None:
    """Numbers, each range in a transaction of its own."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{topic}-numbers"})
    producer.init_transactions(FLUSH_S)
    for numbers in transactions:
        producer.begin_transaction()
        for number in numbers:
            producer.produce(topic, str(number).encode())
        producer.commit_transaction(FLUSH_S)


def read_values(consumer: GroupConsumer, count: int) -> list[int]:
    values: list[int] = []

    def has_read() -> bool:
        values.extend(int(record.value or b"") for record in consumer.poll(100, 20))
        return len(values) >= count

    wait_until(has_read)
    return values


def test_records_that_a_client_skips_after_a_seek_are_read(
    consumer: GroupConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    client = SkippingClient(consumer._member.client)
    monkeypatch.setattr(consumer._member, "client", client)
    (partition,) = consumer.assignment
    # when
    consumer.seek({partition: 4})
    # then
    assert read_values(consumer, 6) == list(range(4, 10))
    assert client.seeks == 2


def test_a_start_at_the_marker_of_a_transaction_counts_at_the_next_record(
    consumer: GroupConsumer, apache_kafka: KafkaBroker
) -> None:
    # given: the marker of the first transaction is at offset 10
    (partition,) = consumer.assignment
    produce(apache_kafka, partition.topic, [range(10, 12)])
    # when
    consumer.seek({partition: 10})
    # then
    assert read_values(consumer, 2) == [10, 11]


def test_a_start_counts_where_it_was_sought_or_at_the_second_same_position() -> None:
    starts = ConfirmedStarts()
    starts.seek(PARTITION, 5)

    assert starts.find_skipped(PARTITION, 8) == 5
    assert starts.find_skipped(PARTITION, 9) == 5
    assert starts.find_skipped(PARTITION, 9) is None
    assert not starts

    starts.seek(PARTITION, 5)
    assert starts.find_skipped(PARTITION, 5) is None
    assert not starts


def test_the_start_of_a_partition_that_was_revoked_is_forgotten() -> None:
    starts = ConfirmedStarts()
    starts.seek(PARTITION, 5)
    starts.forget([PARTITION])

    assert not starts
    assert starts.find_skipped(PARTITION, 8) is None
