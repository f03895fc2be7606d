"""Asks a cluster, again and again, which partitions some topics have, which id and how long their logs are.

It is for readers outside any group.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.admin_connection import AdminConnection
from transport.log_ends import fetch_log_ends
from transport.records import TopicPartition

TIMEOUT_S: Final = 10.0
CLOSE_S: Final = 1.0  # a query in flight ends by itself
REFRESH_S: Final = 5.0  # at most; the client's own setting may be shorter
REFRESH_SETTING: Final = "topic.metadata.refresh.interval.ms"


class TopicState(NamedTuple):
    """The id of a topic, None where the broker reports none, and its number of partitions."""

    topic_id: str | None
    partitions: int


class TopicWatcher:
    """Queries topics in a thread of its own, so that a broker that does not answer delays no reader."""

    def __init__(self, *, kafka: KafkaSettings, topics: Sequence[str]) -> None:
        self._connection = AdminConnection(kafka=kafka)
        self._has_topic_ids, self._topics = kafka.topic_ids, topics
        self._interval_s = min(REFRESH_S, float(kafka.client.get(REFRESH_SETTING, REFRESH_S * 1000)) / 1000)
        self._latest: dict[str, TopicState] | None = None
        self.ends: dict[TopicPartition, int] = {}  # last stable offsets as of the latest answer
        self._wake, self._is_closed = threading.Event(), False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Query now, and from now on."""
        if self._thread is None:
            self._wake.set()
            self._thread = threading.Thread(target=self._run, name="topic-watcher", daemon=True)
            self._thread.start()

    def take(self) -> dict[str, TopicState] | None:
        """The answer that arrived since the last call, if any; returns at once."""
        latest, self._latest = self._latest, None
        return latest

    def query_soon(self) -> None:
        """Query without waiting for the interval; an answer to an earlier query is dropped."""
        self._latest = None
        self._wake.set()

    def close(self) -> None:
        self._is_closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._interval_s)
            if self._is_closed:
                return
            self._wake.clear()
            try:
                states = fetch_topic_states(self._connection, self._topics, has_topic_ids=self._has_topic_ids)
            except Unavailable:
                continue  # what reads the records reports an unreachable broker
            if not self._wake.is_set():
                self._latest = states
            self.ends = self._fetch_ends(states)

    def _fetch_ends(self, states: Mapping[str, TopicState]) -> dict[TopicPartition, int]:
        """Empty where a partition has no leader for longer: the topics are watched all the same."""
        try:
            return fetch_log_ends(self._connection, list_partitions(states), stable=True, timeout_s=TIMEOUT_S)
        except Unavailable:
            return {}


def list_partitions(states: Mapping[str, TopicState]) -> list[TopicPartition]:
    """Every partition of these topics."""
    return [TopicPartition(topic, number) for topic, state in states.items() for number in range(state.partitions)]


def fetch_topic_states(
    connection: AdminConnection, topics: Iterable[str], *, has_topic_ids: bool
) -> dict[str, TopicState]:
    """The state of those topics that exist; raises `Unavailable`."""
    names = list(topics)
    with connection.request("describe topics") as client:
        if not has_topic_ids:
            metadata = client.list_topics(timeout=TIMEOUT_S).topics
            return {name: TopicState(None, len(metadata[name].partitions)) for name in names if name in metadata}
        futures: dict[str, Any] = client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)
        return {
            name: TopicState(read_topic_id(description), len(description.partitions))
            for name, future in futures.items()
            if (description := describe(future)) is not None
        }


def read_topic_id(description: Any) -> str | None:
    """The id of a described topic; None where the broker has none, which it says by zero, in base64."""
    topic_id = str(description.topic_id)
    return topic_id if topic_id.strip("A=") else None


def describe(future: Any) -> Any:
    """The description of a topic, or None where it does not exist."""
    try:
        return future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise
