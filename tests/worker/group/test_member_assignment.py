"""The partitions that a broker says a group's members have."""

import pytest

from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.polling import wait_until
from tests.worker.group.test_consumer import StaticAssignment
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.group.member_assignment import decode_assignment
from worker.kafka.log_probe import LogProbe


def test_an_assignment_is_decoded_by_topic() -> None:
    data = b"\x00\x01" + b"\x00\x00\x00\x02"
    data += b"\x00\x03abc" + b"\x00\x00\x00\x02" + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x07"
    data += b"\x00\x01d" + b"\x00\x00\x00\x01" + b"\x00\x00\x01\x00" + b"\xff\xff\xff\xff"
    assert decode_assignment(data) == {TopicPartition("abc", 0), TopicPartition("abc", 7), TopicPartition("d", 256)}
    assert decode_assignment(b"") == set()


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range"])
def test_a_broker_tells_the_partitions_of_a_group_s_members(
    apache_kafka: KafkaBroker, topic_prefix: str, strategy: str
) -> None:
    # given
    topics = [f"{topic_prefix}orders", f"{topic_prefix}clicks"]
    apache_kafka.create_topics(dict.fromkeys(topics, 3))
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=topic_prefix)
    probe = LogProbe(kafka=kafka)
    assert probe.fetch_assigned(topic_prefix) is None
    # when
    member = GroupConsumer(kafka=kafka, group=topic_prefix, instance="0", strategy=strategy)  # type: ignore[arg-type]
    member.subscribe(topics, StaticAssignment())
    wait_until(lambda: member.poll(1, 20) or len(member.assignment) == 6)
    # then
    assert probe.fetch_assigned(topic_prefix) == member.assignment
    member.close()
    probe.close()
