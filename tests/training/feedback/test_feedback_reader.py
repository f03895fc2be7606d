"""The feedback topic, read value by value, up to a limit, and from a given time."""

from collections.abc import Mapping

import pytest
from confluent_kafka import Producer

from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from tests.kafka import make_settings, recreate_topics
from training.feedback.feedback_reader import FeedbackReader
from transport.positions import without_ids

FILLED_PARTITIONS = 2
OLD_MS, NEW_MS = 1_700_000_000_000, 1_700_000_100_000


def list_filled(positions: Mapping[str, int]) -> dict[str, int]:
    """The offsets of the partitions that hold something."""
    return {partition: offset for partition, offset in without_ids(positions).items() if offset}


def fill_topic(broker: EmbeddedKafka | ApacheKafka, name: str) -> None:
    """Write five old values to each of two of the four partitions, then three new ones to the first."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for n in range(5):
        for partition in range(FILLED_PARTITIONS):
            producer.produce(name, f"old {partition} {n}".encode(), partition=partition, timestamp=OLD_MS + n)
    producer.flush()
    for n in range(3):
        producer.produce(name, f"new {n}".encode(), partition=0, timestamp=NEW_MS + n)
    producer.flush()


def test_each_value_is_passed_to_the_handler_once(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    # given
    fill_topic(broker, topic)
    reader, values = FeedbackReader(kafka=make_settings(broker), topic=topic), list[bytes]()
    # when
    try:
        positions = reader.for_each({}, values.append)
        again = reader.for_each(positions, values.append)
    finally:
        reader.close()
    # then
    assert len(values) == len(set(values)) == 13
    assert positions == again
    assert list_filled(again) == {f"{topic}/0": 8, f"{topic}/1": 5}


def test_a_limit_cuts_the_read_and_the_next_one_returns_the_rest(
    broker: EmbeddedKafka | ApacheKafka, topic: str
) -> None:
    # given 13 records
    fill_topic(broker, topic)
    reader = FeedbackReader(kafka=make_settings(broker), topic=topic)
    # when
    try:
        first = reader.read({}, 9)
        second = reader.read(first.positions, 9)
    finally:
        reader.close()
    # then
    assert (len(first.values), first.has_more) == (9, True)
    assert (len(second.values), second.has_more) == (4, False)
    assert len({*first.values, *second.values}) == 13
    assert max(first.newest_ms, second.newest_ms) == NEW_MS + 2


def test_a_position_that_the_topic_no_longer_holds_counts_as_its_beginning(
    broker: EmbeddedKafka | ApacheKafka, topic: str
) -> None:
    # given
    fill_topic(broker, topic)
    reader = FeedbackReader(kafka=make_settings(broker), topic=topic)
    # when
    try:
        batch = reader.read({f"{topic}/0": 99, f"{topic}/1": 5})
    finally:
        reader.close()
    # then
    assert len(batch.values) == 8
    assert list_filled(batch.positions) == {f"{topic}/0": 8, f"{topic}/1": 5}


@pytest.mark.apache_kafka
def test_a_time_maps_to_an_offset_of_each_partition_or_its_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given timestamps that the mock cluster cannot search
    name = f"{topic_prefix}feedback"
    apache_kafka.create_topics({name: 4})
    fill_topic(apache_kafka, name)
    reader = FeedbackReader(kafka=KafkaSettings(bootstrap_servers=apache_kafka.bootstrap), topic=name)
    values = list[bytes]()
    # when
    try:
        actual = [reader.offsets_for_time(ms) for ms in (OLD_MS - 1, OLD_MS + 10, NEW_MS + 10)]
        reader.for_each(actual[1], values.append)
    finally:
        reader.close()
    # then
    assert [list_filled(positions) for positions in actual] == [
        {},
        {f"{name}/0": 5, f"{name}/1": 5},
        {f"{name}/0": 8, f"{name}/1": 5},
    ]
    assert values == [b"new 0", b"new 1", b"new 2"]


@pytest.mark.apache_kafka
def test_a_recreated_topic_that_is_longer_is_read_from_its_beginning(
    apache_kafka: ApacheKafka, topic_prefix: str
) -> None:
    # given a topic that was read to its end
    name = f"{topic_prefix}feedback"
    apache_kafka.create_topics({name: 1})
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap})
    producer.produce(name, b"former")
    producer.flush()
    reader = FeedbackReader(kafka=make_settings(apache_kafka), topic=name)
    try:
        before = reader.read({})
        # when
        recreate_topics(apache_kafka, {name: 1})
        for n in range(3):
            producer.produce(name, f"new {n}".encode())
        producer.flush()
        after = reader.read(before.positions)
    finally:
        reader.close()
    # then
    assert after.values == [b"new 0", b"new 1", b"new 2"]
    assert list_filled(after.positions) == {f"{name}/0": 3}
