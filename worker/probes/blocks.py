"""Why a partition or a whole worker stands still: a bounded set of reasons, each with a sentence for operators."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from transport.records import TopicPartition
from worker.probes.progress import Progress


class Reason(StrEnum):
    """What a worker waits for; the label of `shopstream_blocked_seconds`."""

    OPEN_TRANSACTION = "open_transaction"
    TOPIC_MISSING = "topic_missing"
    DENIED = "denied"
    TOPIC_UNFIT = "topic_unfit"
    UNWRITABLE = "unwritable"
    REDIS = "redis"
    KAFKA = "kafka"
    REBALANCE = "rebalance"
    FOLLOWER = "follower"
    LOST_STATE = "lost_state"
    FROZEN_STEP = "frozen_step"
    STREAM_TIME = "stream_time"
    UNREAD = "unread"


class Block(NamedTuple):
    """Something that stands still since `since_s` (monotonic), and why, as a sentence.

    `is_unfit`: the worker cannot work, or not on all of its partitions, so it is not ready at once. `stands`: a
    partition or the worker itself makes no progress, so after a longer time it is not live.
    """

    reason: Reason
    since_s: float
    text: str
    is_unfit: bool = False
    stands: bool = True


COMPACTED_KINDS: Final = ("erasures", "products")
# `kafka-transactions.sh` finds and ends a transaction whose producer is gone.
FIND_COMMAND: Final = (
    "kafka-transactions.sh --bootstrap-server {servers} describe-producers --topic {topic} --partition {partition}"
)
ABORT_COMMAND: Final = (
    "kafka-transactions.sh --bootstrap-server {servers} abort --topic {topic} --partition {partition}"
    " --start-offset {offset}"
)


def explain_open_transaction(partition: TopicPartition, offset: int, servers: str) -> str:
    """What is open where, and the commands that find its producer and abort it."""
    names = {"servers": servers, "topic": partition.topic, "partition": partition.partition, "offset": offset}
    return (
        f"A transaction of another producer is open there from offset {offset} on. Find its producer: "
        f"{FIND_COMMAND.format(**names)} (or find-hanging); abort it if its producer is gone: "
        f"{ABORT_COMMAND.format(**names)}"
    )


def explain_missing_topics(missing: Mapping[str, str], servers: str, partitions: int) -> str:
    """Which topics should exist, and the commands that create them. `missing`: name by kind."""
    commands = "; ".join(
        f"kafka-topics.sh --bootstrap-server {servers} --create --topic {topic} --partitions {partitions}"
        + (" --config cleanup.policy=compact" if kind in COMPACTED_KINDS else "")
        for kind, topic in missing.items()
    )
    settings = ", ".join(f"`{topic}` ({kind if '.' in kind else f'topics.{kind}'})" for kind, topic in missing.items())
    text = f"Topics should exist, and this process should be allowed to see them. Found none named {settings}. "
    if not any("." in kind for kind in missing):
        return f"{text}Create them: python -m worker topics, or {commands}"
    return (  # `worker topics` does not create topics of maps
        f"{text}Leave `topics` out of a map that reads files only, or create them: {commands}"
    )


def explain_rebalance(group: str, servers: str) -> str:
    """Which group waits for a member, and the command that shows its members."""
    return (
        f"Every partition should have a member of the group {group}. Found some without; the group waits for a member: "
        f"kafka-consumer-groups.sh --bootstrap-server {servers} --describe --members --group {group}"
    )


def explain_missing_partitions(missing: Iterable[TopicPartition], group: str) -> str:
    """Which partitions a group assigns that do not exist, and what the worker does."""
    names = ", ".join(partition.log_text() for partition in sorted(missing))
    return (
        f"The group {group} should assign partitions that exist. Found {names}, as before a topic was deleted or "
        "recreated with fewer partitions. The worker reads its other partitions, and asks for another rebalance."
    )


def explain_pause(slowest: TopicPartition | None) -> str:
    """For which partition the joiner waits."""
    if slowest is None:
        return "The joined topics should have as many partitions as each other. Nothing is read until they have."
    return f"The joiner should have read {slowest.log_text()} up to the same time. Found it behind, and it waits."


def explain_frozen_step(progress: Progress) -> str:
    """Which step does not end, and where in the code it is."""
    return f"The step `{progress.step()}` should have ended. Found the worker in it, at {progress.locate()}."
