"""Members of a consumer group on Apache Kafka that leave at random moments."""

import threading
import time
from collections.abc import Mapping
from random import Random

from contract.settings.servers import KafkaSettings
from tests.conftest import KafkaBroker
from tests.polling import wait_until
from transport.records import TopicPartition
from worker.kafka.consumer import GroupConsumer

MEMBERS = 24
JOINED_AFTER_S = 4.0  # the broker waits three seconds for other members of the group


class StaticAssignment:
    """Starts every partition at offset 0."""

    def on_assigned(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass


def test_a_member_can_leave_at_any_moment_of_joining(apache_kafka: KafkaBroker, topic_prefix: str, seed: int) -> None:
    # given a topic, and each member in a group of its own
    topic = f"{topic_prefix}orders"
    apache_kafka.create_topics({topic: 4})
    rng = Random(seed)
    started_s = time.monotonic()
    leaving: list[threading.Thread] = []
    for moment in sorted(rng.uniform(0, JOINED_AFTER_S) for _ in range(MEMBERS)):
        kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap, group_prefix=f"{topic_prefix}{len(leaving)}")
        member = GroupConsumer(kafka=kafka, group=kafka.group_prefix, instance="0")
        member.subscribe([topic], StaticAssignment())
        # when each leaves at its own moment, without having polled
        timer = threading.Timer(max(0.0, started_s + moment - time.monotonic()), member.close)
        timer.daemon = True
        timer.start()
        leaving.append(timer)
    # then
    wait_until(lambda: not any(thread.is_alive() for thread in leaving))
