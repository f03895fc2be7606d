"""The feedback topic, read value by value and from a time on."""

import pytest
from confluent_kafka import Producer

from contract.settings import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from training.feedback.feedback_reader import FeedbackReader

FILLED = 2  # partitions
OLD_MS, NEW_MS = 1_700_000_000_000, 1_700_000_100_000


def fill_topic(broker: EmbeddedKafka | ApacheKafka, name: str) -> None:
    """Five old values in each of two of its four partitions; the first has three new ones behind them."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for n in range(5):
        for partition in range(FILLED):
            producer.produce(name, f"old {partition} {n}".encode(), partition=partition, timestamp=OLD_MS + n)
    producer.flush()
    for n in range(3):
        producer.produce(name, f"new {n}".encode(), partition=0, timestamp=NEW_MS + n)
    producer.flush()


def test_values_are_handed_over_as_they_come_and_none_is_kept(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    # given
    fill_topic(broker, topic)
    feed, taken = FeedbackReader(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap), topic=topic), list[bytes]()
    # when
    try:
        positions = feed.for_each({}, taken.append)
        again = feed.for_each(positions, taken.append)
    finally:
        feed.close()
    # then
    assert len(taken) == len(set(taken)) == 13
    assert positions == again == {f"{topic}/0": 8, f"{topic}/1": 5}


@pytest.mark.apache_kafka
def test_a_time_is_a_position_in_each_partition_and_its_end_where_nothing_came_since(
    apache_kafka: ApacheKafka, topic_prefix: str
) -> None:
    # given what the mock cluster does not tell
    name = f"{topic_prefix}feedback"
    apache_kafka.create_topics({name: 4})
    fill_topic(apache_kafka, name)
    feed, taken = (
        FeedbackReader(kafka=KafkaSettings(bootstrap_servers=apache_kafka.bootstrap), topic=name),
        list[bytes](),
    )
    # when
    try:
        actual = [feed.offsets_for_time(ms) for ms in (OLD_MS - 1, OLD_MS + 10, NEW_MS + 10)]
        feed.for_each(actual[1], taken.append)
    finally:
        feed.close()
    # then
    assert actual == [
        {f"{name}/0": a, f"{name}/1": b, f"{name}/2": 0, f"{name}/3": 0} for a, b in ((0, 0), (5, 5), (8, 5))
    ]
    assert taken == [b"new 0", b"new 1", b"new 2"]
