"""Offsets that the client of a member asks the brokers for, knows from its last fetch, or commits."""

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from transport.client_errors import translate_errors
from transport.records import PartitionOffsets, TopicPartition


def query_offsets(
    client: Consumer, partitions: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, PartitionOffsets]:
    """Committed offsets and offset ranges of these partitions. Raises `Unavailable`."""
    requested = [KafkaPartition(*partition) for partition in partitions]
    if not requested:
        return {}  # the client would wait in vain for an empty answer
    with translate_errors("return committed offsets"):
        committed = client.committed(requested, timeout=timeout_s)
    offsets = {}
    for tp in committed:
        with translate_errors("return the ends of a partition"):
            low, high = client.get_watermark_offsets(tp, timeout=timeout_s)
        offsets[TopicPartition(tp.topic, tp.partition)] = PartitionOffsets(
            tp.offset if tp.offset >= 0 else None, low, high, tp.metadata or ""
        )
    return offsets


def count_partitions(client: Consumer, timeout_s: float) -> dict[str, int]:
    """The number of partitions of each topic that exists. Raises `KafkaException`."""
    metadata = client.list_topics(timeout=timeout_s)
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def read_cached_ends(client: Consumer, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The high watermark of each partition that was fetched, as of the last fetch; sends no request."""
    offsets = {}
    for partition in partitions:
        watermarks = client.get_watermark_offsets(KafkaPartition(*partition), cached=True)
        if watermarks[1] >= 0:
            offsets[partition] = watermarks[1]
    return offsets


def commit_offsets(
    client: Consumer, positions: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]
) -> None:
    """Commit these offsets, some with metadata, for the group. Raises `Unavailable`."""
    offsets = [
        KafkaPartition(*partition, offset, metadata=metadata.get(partition, ""))
        for partition, offset in positions.items()
    ]
    with translate_errors("commit offsets"):
        client.commit(offsets=offsets, asynchronous=False)
