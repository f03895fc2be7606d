"""Offsets of a group as a process sees them without being a member: read, or committed for a topic that it tails."""

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.servers import KafkaSettings
from transport.client_errors import translate_errors
from transport.log_consumer import create_consumer
from transport.records import NO_METADATA, TopicPartition

TIMEOUT_S: Final = 10.0
COORDINATOR_POLL_S: Final = 0.1
# A group has no coordinator for a moment while the broker creates its topic of offsets, or loads it.
COORDINATOR_CHANGES: Final = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def commit_offsets(
    kafka: KafkaSettings,
    group: str,
    offsets: Mapping[TopicPartition, int],
    metadata: Mapping[TopicPartition, str] = NO_METADATA,
) -> None:
    """Commit these offsets, some with metadata, under a group without members. Raises `Unavailable`.

    It returns once the broker has them. The client lives for this call only: one of a group asks for its coordinator as
    long as it exists.
    """
    requested = [
        KafkaPartition(*partition, offset, metadata=metadata.get(partition, ""))
        for partition, offset in offsets.items()
    ]
    if not requested:
        return
    with closing(create_consumer(kafka, {"group.id": group})) as consumer, translate_errors("store committed offsets"):
        query_committed(consumer, requested[:1])  # a commit waits for the coordinator without a limit
        consumer.commit(offsets=requested, asynchronous=False)


def fetch_commits(
    kafka: KafkaSettings, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    """The offsets that a group has committed in these partitions, with their metadata. Raises `Unavailable`.

    An admin client would ask for less, but librdkafka may end the process where a connection breaks while it asks a
    coordinator: https://github.com/confluentinc/librdkafka/pull/5397
    """
    requested = [KafkaPartition(*partition) for partition in partitions]
    if not requested:
        return {}
    with (
        closing(create_consumer(kafka, {"group.id": group})) as consumer,
        translate_errors(f"return the committed offsets of {group}"),
    ):
        committed = query_committed(consumer, requested)
    return {
        TopicPartition(tp.topic, tp.partition): (tp.offset, tp.metadata or "") for tp in committed if tp.offset >= 0
    }


def query_committed(
    consumer: Consumer, partitions: list[KafkaPartition], timeout_s: float = TIMEOUT_S
) -> list[KafkaPartition]:
    """What the group has committed; while its coordinator changes, ask again for up to `timeout_s`.

    librdkafka looks for the new one after such an error, but does not repeat this request.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return consumer.committed(partitions, timeout=timeout_s)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT and (denied := find_denial(consumer)):
                raise KafkaException(denied) from error
            if error.args[0].code() not in COORDINATOR_CHANGES or time.monotonic() > deadline_s:
                raise
        time.sleep(COORDINATOR_POLL_S)


def find_denial(consumer: Consumer) -> KafkaError | None:
    """Why no coordinator was found, if the user may not use the group: the call itself says only that it timed out."""
    while (message := consumer.poll(COORDINATOR_POLL_S)) is not None:
        error = message.error()
        if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return error
    return None
