"""What a run that stands still says: who has which partitions, for what each process waits, and all stacks."""

import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from devservers.apache_kafka import JAVA, make_admin_client
from devservers.kafka_distribution import fetch_jars
from testkit.chaos.fleet import Fleet, FleetProcess
from transport.log_ends import LATEST

METRICS: Final = (
    "shopstream_waiting",
    "shopstream_lag_records",
    "shopstream_recoveries_total",
    "shopstream_erasures_pending",
    "shopstream_stream_time_seconds",
    "shopstream_stream_time_held_seconds",
    "shopstream_oldest_open_seconds",
    "shopstream_orphan_labels",
)
LOG_LINES: Final = 12
REQUEST_S: Final = 10.0
TOOL_S: Final = 60.0
COMPLETE: Final = ("CompleteCommit", "CompleteAbort")


def describe_processes(fleet: Fleet) -> Iterator[str]:
    """Probes, metrics that are not 0, the last lines of the log and the stacks of each process."""
    for process in fleet.processes:
        yield f"--- {process.name}: {describe_state(process)}, in step {process.process.step}"
        yield f"readyz: {process.probe('readyz').strip()}; livez: {process.probe('livez').strip()}"
        yield from (line for line in process.probe("metrics").splitlines() if is_telling(line))
        yield from process.process.child.tail(4_000).splitlines()[-LOG_LINES:]
        yield from process.read_stacks().splitlines()


def describe_groups(bootstrap: str, groups: Sequence[str]) -> Iterator[str]:
    """The state of each group, and the partitions of each member as the broker knows them."""
    admin = make_admin_client(bootstrap)
    for group, reply in admin.describe_consumer_groups(list(groups), request_timeout=REQUEST_S).items():
        try:
            description = reply.result()
        except KafkaException as error:
            yield f"--- group {group}: {error}"
            continue
        yield f"--- group {group}: {description.state.name}"
        for member in description.members:
            yield f"{member.group_instance_id}: {describe_partitions(member.assignment.topic_partitions)}"


def describe_transactions(bootstrap: str) -> Iterator[str]:
    """Partitions that are held back, and the transactions that hold them, as Kafka's own tool lists them."""
    admin = make_admin_client(bootstrap)
    partitions = [
        KafkaPartition(topic.topic or "", number)
        for topic in admin.list_topics(timeout=REQUEST_S).topics.values()
        for number in topic.partitions
    ]
    stable_ends, ends = (
        {partition: reply.result().offset for partition, reply in replies.items()}
        for replies in (
            admin.list_offsets(dict.fromkeys(partitions, LATEST), isolation_level=level, request_timeout=REQUEST_S)
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
    )
    yield "--- partitions that open transactions hold back"
    yield from (f"{p.topic}[{p.partition}] at {stable_ends[p]} of {ends[p]}" for p in ends if stable_ends[p] < ends[p])
    yield "--- transactions"
    yield from (line for line in run_transaction_tool(bootstrap, "list") if not any(word in line for word in COMPLETE))
    yield "--- hanging transactions"
    yield from run_transaction_tool(bootstrap, "find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0")


def run_transaction_tool(bootstrap: str, *arguments: str) -> list[str]:
    command = [*JAVA, "-cp", f"{fetch_jars()}/*", "org.apache.kafka.tools.TransactionsCommand"]
    command += ["--bootstrap-server", bootstrap, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S, check=False)
    return [*result.stdout.splitlines(), *result.stderr.splitlines()[-LOG_LINES:]]


def describe_partitions(partitions: Sequence[Any]) -> str:
    numbers = defaultdict[str, list[int]](list)
    for partition in partitions:
        numbers[partition.topic].append(partition.partition)
    return ", ".join(f"{topic} {sorted(numbers[topic])}" for topic in sorted(numbers)) or "no partition"


def describe_state(process: FleetProcess) -> str:
    if not process.is_running:
        return "not running"
    return "frozen" if process.is_frozen else "running"


def is_telling(line: str) -> bool:
    return line.startswith(METRICS) and (not line.endswith(" 0.0") or line.startswith("shopstream_lag_records"))
