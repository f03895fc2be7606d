"""Readers whose clients have lost their brokers go on with new ones."""

import itertools
from contextlib import closing

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from devservers.librdkafka import SILENT
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer
from tests.polling import wait_until
from transport import log_consumer, log_reader, stall_detector, topic_watcher
from transport.admin_connection import AdminConnection
from transport.log_consumer import LogConsumer, create_consumer
from transport.log_reader import LogReader, TopicTailer
from transport.records import TopicPartition
from transport.topic_watcher import TopicWatcher

NO_BROKER = "127.0.0.1:1"


def lose_admin_brokers(connection: AdminConnection) -> None:
    """Have it own a client that never reaches a broker."""
    connection._client = AdminClient({"bootstrap.servers": NO_BROKER, **SILENT})


def lose_brokers(consumer: LogConsumer) -> None:
    """Have it own a client that goes on at the same positions and never reaches a broker."""
    lost = create_consumer(KafkaSettings(bootstrap_servers=NO_BROKER, group_prefix="lost"), {"log_level": 0})
    assigned = consumer.client.assignment()
    lost.assign([KafkaPartition(tp.topic, tp.partition, 0) for tp in assigned])
    consumer.client.close()
    consumer.client = lost


def make_settings(broker: KafkaBroker) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap,
        group_prefix="lost",
        topic_ids=isinstance(broker, ApacheKafka),
        client={"topic.metadata.refresh.interval.ms": 50},
    )


def send(broker: KafkaBroker, topic: str, *values: bytes) -> None:
    for number, value in enumerate(values):
        BlockingProducer(broker.bootstrap).send(topic, [("key", value)], partition=number % 4)


def read_until(tailer: TopicTailer, values: list[bytes | None], expected: set[bytes]) -> None:
    def poll() -> bool:
        values.extend(record.value for record in tailer.poll(10, 20))
        return expected <= set(values)

    wait_until(poll)


def test_a_tailer_whose_consumer_lost_its_brokers_reads_each_later_record_once(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    monkeypatch.setattr(stall_detector, "STALL_S", 0.5)
    values = list[bytes | None]()
    send(broker, topic, b"a", b"b", b"c")
    with closing(TopicTailer(kafka=make_settings(broker), topics=[topic])) as tailer:
        read_until(tailer, values, {b"a", b"b", b"c"})
        # when
        lose_brokers(tailer._consumer)
        send(broker, topic, b"d", b"e", b"f", b"g")
        # then
        read_until(tailer, values, {b"d", b"e", b"f", b"g"})
        assert "read with a new client" in caplog.text
        send(broker, topic, b"h")
        read_until(tailer, values, {b"h"})
        assert sorted(map(str, values)) == [str(b"%c" % letter) for letter in b"abcdefgh"]
        assert tailer.take_restarted() == set()


def is_opened(tailer: TopicTailer) -> bool:
    try:
        tailer.open()
    except Unavailable:
        return False
    return True


def test_a_tailer_that_is_opened_without_brokers_opens_with_a_new_consumer(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(log_consumer, "TIMEOUT_S", 0.5)
    send(broker, topic, b"a")
    with closing(TopicTailer(kafka=make_settings(broker), topics=[topic])) as tailer:
        lose_brokers(tailer._consumer)
        # when
        with pytest.raises(Unavailable):
            tailer.open()
        monkeypatch.undo()
        # then, as soon as the new one knows a broker
        wait_until(lambda: is_opened(tailer))
        values = list[bytes | None]()
        read_until(tailer, values, {b"a"})
        assert values == [b"a"]


@pytest.mark.apache_kafka
def test_a_tailer_behind_an_aborted_transaction_is_at_its_end(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic, values = f"{topic_prefix}topic", list[bytes | None]()
    apache_kafka.create_topics({topic: 1})
    producer = Producer({"bootstrap.servers": apache_kafka.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(30)
    BlockingProducer(apache_kafka.bootstrap).send(topic, [("key", b"a")])
    with closing(TopicTailer(kafka=make_settings(apache_kafka), topics=[topic])) as tailer:
        read_until(tailer, values, {b"a"})
        # when
        producer.begin_transaction()
        producer.produce(topic, b"aborted", "key")
        producer.flush(30)
        producer.abort_transaction(30)
        # then
        end = {TopicPartition(topic, 0): 3}
        wait_until(lambda: tailer.poll(10, 20) or (tailer._watcher.ends == end == tailer.positions))


def test_a_reader_that_lost_its_brokers_reads_with_a_new_consumer(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    send(broker, topic, b"a")
    partition = TopicPartition(topic, 0)
    with closing(LogReader(kafka=make_settings(broker))) as reader:
        # when a read gets nothing
        lose_brokers(reader._consumer)
        monkeypatch.setattr(log_reader, "IDLE_TIMEOUT_S", 0.5)
        with pytest.raises(Unavailable):
            list(reader.read({partition: 1}))
        monkeypatch.undo()
        # then
        assert [record.value for records in reader.read({partition: 1}) for record in records] == [b"a"]
        # when a query gets nothing
        lose_brokers(reader._consumer)
        monkeypatch.setattr(log_consumer, "TIMEOUT_S", 0.5)
        with pytest.raises(Unavailable):
            reader.fetch_offset_ranges([topic])
        monkeypatch.undo()
        # then
        assert reader.fetch_offset_ranges([topic])[partition].high == 1


def test_a_read_whose_consumer_lost_its_brokers_goes_on_where_it_was(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given a read that has returned the records of one partition, and the first record of another
    monkeypatch.setattr(log_reader, "IDLE_CLIENT_S", 3.0)
    monkeypatch.setattr(log_reader, "CHUNK_RECORDS", 1)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = BlockingProducer(broker.bootstrap)
    producer.send(topic, [("key", b"a")], partition=0)
    producer.send(topic, [("key", value) for value in (b"b", b"c", b"d")], partition=1)
    with closing(LogReader(kafka=make_settings(broker))) as reader:
        chunks = reader.read({first: 1, second: 3})
        values = [record.value for record in itertools.chain(next(chunks), next(chunks))]
        # when
        lose_brokers(reader._consumer)
        values += [record.value for chunk in chunks for record in chunk]
    # then
    assert sorted(map(str, values)) == [str(b"%c" % letter) for letter in b"abcd"]
    assert "a new client asks" in caplog.text


def test_a_watcher_whose_admin_client_lost_its_brokers_answers_again(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(topic_watcher, "TIMEOUT_S", 1.0)
    send(broker, topic, b"a")
    with closing(TopicWatcher(kafka=make_settings(broker), topics=[topic])) as watcher:
        lose_admin_brokers(watcher._connection)
        # when
        watcher.start()
        # then
        wait_until(lambda: TopicPartition(topic, 0) in watcher.ends)
        assert watcher.ends[TopicPartition(topic, 0)] == 1
        wait_until(watcher.take)
