"""Joiners and their shards, on Apache Kafka."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.contract.joining.builders import make_click, make_impression, make_label, make_row
from tests.polling import wait_until
from tests.worker.joiner.test_worker import TOPICS, JoinerProcess, JoinerTopics
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer

pytestmark = pytest.mark.apache_kafka


@contextmanager
def run_joiner(kafka: JoinerTopics, output: Path, instance: str = "0") -> Iterator[JoinerProcess]:
    process = JoinerProcess(kafka, output)
    process.environment = {**(process.environment or {}), "SHOPSTREAM_WORKER__INSTANCE": instance}
    process.start()
    try:
        yield process
    finally:
        process.kill()


def read_metric(process: JoinerProcess, name: str) -> float:
    lines = [line for line in process.fetch("/metrics")[1].splitlines() if line.startswith(f"shopstream_{name} ")]
    return float(lines[0].split()[-1]) if lines else 0.0


def send_list(kafka: JoinerTopics, partition: int) -> None:
    """A list that was shown, in the partitions of one number."""
    kafka.send(
        {
            TopicPartition("scored", partition): [make_row("recommendation", f"r{partition}", 0, ("a",))],
            TopicPartition("impressions", partition): [make_impression(1, "a", recommendation_id=f"r{partition}")],
        }
    )


def send_click(kafka: JoinerTopics, partition: int) -> None:
    kafka.send({TopicPartition("clicks", partition): [make_click(2, "a", recommendation_id=f"r{partition}")]})


def test_rows_that_wait_are_joined_wherever_their_shard_is(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    with ExitStack() as stack:
        # given a joiner with a waiting row in each shard
        first = stack.enter_context(run_joiner(kafka, tmp_path / "first.log", "first"))
        for number in range(4):
            send_list(kafka, number)
        first.wait_for(lambda: read_metric(first, "joiner_shards") == 4)
        # when another one takes two of the shards, and leaves again
        second = stack.enter_context(run_joiner(kafka, tmp_path / "second.log", "second"))
        second.wait_for(lambda: read_metric(second, "joiner_shards") == 2)
        first.wait_for(lambda: read_metric(first, "joiner_shards") == 2)
        for number in (0, 2):
            send_click(kafka, number)
        first.wait_for(lambda: len(kafka.read_examples()) == 2)
        assert second.stop() == 0
        first.wait_for(lambda: read_metric(first, "joiner_shards") == 4)
        for number in (1, 3):
            send_click(kafka, number)
        # then each click is joined once
        first.wait_for(lambda: len(kafka.read_examples()) == 4)
        assert sorted((e.example_id, e.revision) for e in kafka.read_examples()) == [(f"r{n}~a", 1) for n in range(4)]
        assert first.stop() == 0


def test_a_topic_with_too_few_partitions_is_named_and_joined_once_it_has_them(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    # given a topic of labels with one partition, and an order
    apache_kafka.create_topics({f"{topic_prefix}labels": 1})
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    kafka.send({TopicPartition("scored", 3): [make_row("order", "o", 1)]})
    with run_joiner(kafka, tmp_path / "joiner.log") as process:
        # when the joiner starts, it says what is wrong
        process.wait_for(lambda: "same number of partitions" in process.fetch("/readyz")[1])
        assert f"--alter --topic {topic_prefix}labels --partitions 4" in process.fetch("/readyz")[1]
        # and when the topic has as many partitions
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
        admin.create_partitions([NewPartitions(f"{topic_prefix}labels", 4)])[f"{topic_prefix}labels"].result(30)
        wait_until(lambda: len(admin.list_topics(timeout=10).topics[f"{topic_prefix}labels"].partitions) == 4)
        kafka.send({TopicPartition("labels", 3): [make_label(4, 1)]})
        # then it joins
        process.wait_for(lambda: kafka.read_examples())
        assert [(e.example_id, e.labels) for e in kafka.read_examples()] == [("o", {"fraud": 1.0})]
        process.wait_for(lambda: process.fetch("/readyz") == (200, "ok\n"))


def test_a_joiner_continues_the_group_of_a_release_with_the_former_protocol(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path
) -> None:
    # given a member of the former protocol that has been stopped, which does not leave the group
    kafka = JoinerTopics(apache_kafka, topic_prefix)
    settings = KafkaSettings(
        bootstrap_servers=kafka.bootstrap, group_prefix=f"{topic_prefix}group", session_timeout_ms=6_000
    )
    former = GroupConsumer(kafka=settings, group=settings.group("feedback"), instance="0")
    former.subscribe([f"{topic_prefix}{kind}" for kind in TOPICS[:5]], NoListener())
    wait_until(lambda: former.poll(1, 10) or len(former.assignment) == 20)
    former.close()
    # when a joiner starts
    send_list(kafka, 0)
    send_click(kafka, 0)
    with run_joiner(kafka, tmp_path / "joiner.log") as process:
        # then it takes the partitions
        process.wait_for(lambda: kafka.read_examples())
        assert process.stop() == 0


class NoListener:
    """Starts every partition at its committed offset."""

    def on_assigned(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {}

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        pass
