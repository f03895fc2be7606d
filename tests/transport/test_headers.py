"""Records whose headers the client cannot represent: every reader goes on."""

from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.kafka import open_consumer, read_topics
from tests.raw_records import send_raw
from transport.headers import decode_headers
from transport.log_reader import TopicTailer

NOT_UTF8 = [(b"first", b"1"), (b"\xff\xfe", b"2"), (b"\xc3", None), (b"last", b"3")]
ODD = 40


def read_one(consumer: Consumer, topic: str) -> Message:
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    while True:
        message = consumer.poll(30)
        assert message is not None
        if message.error() is None:
            return message


def test_a_header_whose_name_is_not_utf8_is_left_out_and_counted(broker: KafkaBroker, topic: str) -> None:
    # given
    send_raw(broker.bootstrap, topic, b"value", headers=NOT_UTF8)
    counts = list[int]()
    # when
    with open_consumer(broker.bootstrap) as consumer:
        headers = decode_headers(read_one(consumer, topic), counts.append)
    # then
    assert headers == [("first", b"1"), ("last", b"3")]
    assert counts == [2]


def test_every_reader_goes_on_behind_a_header_whose_name_is_not_utf8(broker: KafkaBroker, topic: str) -> None:
    # given a number of them at which the interpreter optimises the loop of a reader, before a plain record
    for _ in range(ODD):
        send_raw(broker.bootstrap, topic, b"odd", key=b"\xff", headers=NOT_UTF8)
    send_raw(broker.bootstrap, topic, b"plain")
    # when
    read = read_topics(broker.bootstrap, topic)
    with closing(TopicTailer(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap), topics=[topic])) as tailer:
        tailer.open()
        followed = [record for _ in iter(lambda: tailer.partitions_behind, 0) for record in tailer.poll(10, 100)]
    # then
    assert [record.value for record in read] == [record.value for record in followed] == [b"odd"] * ODD + [b"plain"]
    assert [name for record in read for name, _ in record.headers] == ["first", "last"] * ODD
    assert [name for record in followed for name, _ in record.headers] == ["first", "last"] * ODD


def test_headers_of_any_size_and_without_a_value_are_read(broker: KafkaBroker, topic: str) -> None:
    # given
    headers = [("none", None), ("", b"no name"), ("empty", b""), ("large", b"x" * 900_000), ("größe", b"\xff")]
    send_raw(broker.bootstrap, topic, None, headers=[(name.encode(), value) for name, value in headers])
    # when
    (record,) = read_topics(broker.bootstrap, topic)
    # then
    assert record.headers == headers
