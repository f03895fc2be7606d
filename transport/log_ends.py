"""Asks an admin client how far logs go."""

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from contract.errors import Unavailable
from transport.admin_connection import AdminConnection
from transport.records import TopicPartition

LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
# Of a partition whose topic is being created or deleted, or whose leader changes.
TRANSIENT: Final = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
)
UNSUPPORTED: Final = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)
DENIED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


def fetch_log_ends(
    connection: AdminConnection, partitions: Iterable[TopicPartition], *, stable: bool, timeout_s: float
) -> dict[TopicPartition, int]:
    """The high watermark of each partition; `stable`: its last stable offset, where an open transaction begins.

    Partitions that do not exist, or have no leader for now, are left out. Raises `Unavailable`.
    """
    requests = {KafkaPartition(*partition): LATEST for partition in partitions}
    if not requests:
        return {}
    level = IsolationLevel.READ_COMMITTED if stable else IsolationLevel.READ_UNCOMMITTED
    with connection.request("return the ends of logs") as client:
        replies = client.list_offsets(requests, isolation_level=level, request_timeout=timeout_s)
        ends = {TopicPartition(tp.topic, tp.partition): wait_for(reply, timeout_s) for tp, reply in replies.items()}
    offsets = {partition: end.offset for partition, end in ends.items() if end is not None}
    if unknown := [partition.log_text() for partition, offset in offsets.items() if offset < 0]:
        connection.replace(client)
        raise Unavailable(f"Kafka should return the ends of logs. Found none of {', '.join(unknown)}.")
    return offsets


def wait_for(reply: "Future[Any]", timeout_s: float) -> Any:
    """The result of a request with this time-out; None where there is none for now, or this client may not know it.

    Raises KafkaException or TimeoutError.
    """
    try:
        return reply.result(2 * timeout_s)
    except KafkaException as error:
        if error.args[0].code() not in (*TRANSIENT, *UNSUPPORTED, *DENIED):
            raise
        return None
