"""Owners that commit their progress in Kafka: who is waited for, and how often Kafka is asked."""

from collections.abc import Mapping
from typing import Final

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.mapping.event_topics import EventTopics
from contract.messages import to_json
from contract.settings.servers import KafkaSettings, TopicSettings
from devservers.librdkafka import SILENT
from tests.conftest import KafkaBroker
from tests.kafka import make_settings
from transport.group_offsets import commit_offsets
from transport.records import TopicPartition
from worker.erasure.kafka_owners import (
    ErasedMetadata,
    ErasedOffsets,
    GroupOwners,
    JoinerOwners,
    RarelyAskedOwners,
)
from worker.erasure.progress import ErasureOffsets, ErasureProgress
from worker.kafka.admin import KafkaAdmin
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore

ERASED: Final = ErasedOffsets("an-id", {"0": 7, "2": 1})


@pytest.fixture
def kafka(broker: KafkaBroker, topic_prefix: str) -> KafkaSettings:
    return make_settings(broker, topic_prefix)


@pytest.fixture
def topics(broker: KafkaBroker, kafka: KafkaSettings, topic_prefix: str) -> TopicSettings:
    """The joined topics and the erasures topic, with four partitions each."""
    names = {kind: f"{topic_prefix}{kind}" for kind in ("scored", "clicks", "erasures")}
    broker.create_topics(dict.fromkeys((*names.values(), f"{topic_prefix}other"), 4))
    for group in ("feedback", "learner", "monitor"):  # a new broker has no coordinator yet
        commit_offsets(kafka, kafka.group(group), {TopicPartition(f"{topic_prefix}other", 0): 0})
    return TopicSettings(**names, impressions="no-i", orders="no-o", labels="no-l")  # type: ignore[arg-type]


def commit(kafka: KafkaSettings, group: str, partition: TopicPartition, offset: int, metadata: str) -> None:
    """Commit an offset with metadata, as the joiner does."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": kafka.group(group), **SILENT})
    consumer.commit(offsets=[KafkaPartition(*partition, offset, metadata=metadata)], asynchronous=False)
    consumer.close()


def test_every_partition_that_the_joiner_has_committed_is_an_owner(kafka: KafkaSettings, topics: TopicSettings) -> None:
    # given a joiner that committed its progress in one partition, and an earlier version that did not in another
    owners = JoinerOwners(topics=EventTopics(topics), admin=KafkaAdmin(kafka=kafka))
    assert owners.read_offsets() == {}
    # when
    commit(kafka, "feedback", TopicPartition(topics.scored, 1), 5, to_json(ErasedMetadata(ERASED)).decode())
    commit(kafka, "feedback", TopicPartition(topics.clicks, 0), 5, '{"orphans":{"fraud":2},"read":3}')
    # then
    assert owners.read_offsets() == {
        f"joiner>{topics.scored}/1": {"erasures~an-id/0": 7, "erasures~an-id/2": 1},
        f"joiner>{topics.clicks}/0": {},
    }


def test_a_group_of_training_is_an_owner_once_it_has_committed(kafka: KafkaSettings, topics: TopicSettings) -> None:
    # given
    admin = KafkaAdmin(kafka=kafka)
    progress = ErasureProgress(
        profiles=RedisProfileStore(client=RedisClient(url="redis://localhost:1", timeout_s=1), prefix="shop:"),
        topic_id=lambda: admin.fetch_topic_ids([topics.erasures]).get(topics.erasures),
    )
    progress.open()
    learner, monitor = (
        GroupOwners(process=process, topics=topics, progress=progress, admin=admin)
        for process in ("learner", "monitor")
    )
    # when
    commit_offsets(kafka, kafka.group("learner"), {TopicPartition(topics.erasures, n): n for n in range(4)})
    # then
    assert learner.read_offsets() == {
        "learner": {progress.partition_name(TopicPartition(topics.erasures, n)): n for n in range(4)}
    }
    assert monitor.read_offsets() == {}


class CountingOwners:
    """Owners with a fixed answer."""

    name: Final = "joiner"

    def __init__(self) -> None:
        self.answer: Mapping[str, ErasureOffsets] = {"joiner>t/0": {}}
        self.asked = 0

    def read_offsets(self) -> Mapping[str, ErasureOffsets]:
        self.asked += 1
        return self.answer


def test_owners_are_asked_less_often_while_their_answer_stays() -> None:
    # given owners that are asked once a second
    now_s = 0.0
    counting = CountingOwners()
    owners = RarelyAskedOwners(counting, clock_s=lambda: now_s)
    # when
    for now_s in range(100):  # noqa: B007
        assert owners.read_offsets() == counting.answer
    # then
    assert counting.asked < 20
    # and a new answer is seen within ten seconds, and makes them be asked at once again
    counting.answer = {"joiner>t/0": {"erasures/0": 5}}
    for now_s in range(100, 110):  # noqa: B007
        owners.read_offsets()
    assert owners.read_offsets() == counting.answer


def test_metadata_of_another_program_counts_as_no_progress(kafka: KafkaSettings, topics: TopicSettings) -> None:
    commit(kafka, "feedback", TopicPartition(topics.scored, 3), 5, "not JSON")

    owners = JoinerOwners(topics=EventTopics(topics), admin=KafkaAdmin(kafka=kafka))

    assert owners.read_offsets() == {f"joiner>{topics.scored}/3": {}}


def test_the_progress_of_two_hundred_partitions_fits_into_the_metadata_of_an_offset() -> None:
    erased = ErasedOffsets("x" * 22, {f"{n}": 10**9 + n for n in range(200)})

    assert len(to_json(ErasedMetadata(erased))) < 3_500
