"""The client of a group consumer: its configuration, and how it is closed."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from contract.settings.servers import KafkaSettings
from transport.records import TopicPartition
from worker.group.instance_name import InstanceName

CLOSING_POLLS_MAX: Final = 1_000
GATHERED_BYTES: Final = 65_536  # after which the broker answers a request to gather records at once


def build_configuration(
    kafka: KafkaSettings,
    name: InstanceName,
    *,
    skips_gaps: bool,
    strategy: str,
    on_error: Callable[[KafkaError], None],
) -> dict[str, Any]:
    """The options of a static member that commits by itself and reports the ends of partitions."""
    return {
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest" if skips_gaps else "error",
        "fetch.wait.max.ms": 50,
        "topic.metadata.refresh.interval.ms": 10_000,  # how soon a topic created later is found
        **kafka.connection(),
        "group.id": name.group,
        "group.instance.id": name.instance_id,
        "session.timeout.ms": kafka.session_timeout_ms,
        "partition.assignment.strategy": strategy,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,  # offsets do not show an end: transaction markers have some too
        "error_cb": on_error,
        "log_level": 3,
    }


def gather_records(kafka: KafkaSettings, gathering_ms: int) -> KafkaSettings:
    """Settings of a consumer for which brokers gather records for so long; 0: they answer with the first record."""
    if not gathering_ms:
        return kafka
    gathering = {"fetch.wait.max.ms": gathering_ms, "fetch.min.bytes": GATHERED_BYTES}
    return kafka.model_copy(update={"client": {**gathering, **kafka.client}})


def close_client(client: Consumer, assignment: Iterable[TopicPartition]) -> None:
    """Leave the group, after a pending rebalance was served.

    Otherwise `Consumer.close()` would trigger a second revocation callback, never get its acknowledgement, and block
    forever while holding the GIL.
    """
    client.pause([KafkaPartition(*partition) for partition in assignment])
    for _ in range(CLOSING_POLLS_MAX):  # a fenced client returns its error each time
        if client.poll(0) is None:
            break  # what came before is an error or a partition's end: every partition is paused
    client.close()
