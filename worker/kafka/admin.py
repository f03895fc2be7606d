"""The Kafka admin client: which topics exist, their ids and committed offsets; creates topics."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import (
    TopicPartition as KafkaPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings, TopicSettings
from transport.records import TopicPartition

client_log = logging.getLogger("librdkafka")  # of its own threads; written when this client polls
TIMEOUT_S: Final = 10.0


class KafkaAdmin:
    """Queries a cluster and creates its topics."""

    def __init__(self, *, kafka: KafkaSettings) -> None:
        self._configuration = {**kafka.connection(), "log_level": 3}
        self._client = self._connect()
        self._has_topic_ids, self._group_id = kafka.topic_ids, kafka.group

    def fetch_topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The id of each topic that exists; empty from a broker without topic ids."""
        return self.request_topic_ids(topics)()

    def request_topic_ids(self, topics: Iterable[str]) -> Callable[[], dict[str, str]]:
        """Send the request of `fetch_topic_ids`; the returned function waits for the answer."""
        names = list(topics)
        futures: dict[str, Any] = {}
        client = self._admin  # until its futures are done, also if another request fails
        if self._has_topic_ids and names:
            futures = client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)

        def wait(_: AdminClient = client) -> dict[str, str]:
            try:
                return {
                    topic: str(future.result().topic_id) for topic, future in futures.items() if self._exists(future)
                }
            except KafkaException as error:
                raise self._to_unavailable("describe its topics", error) from error

        return wait

    def list_partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """Every partition of those topics that exist; raises `Unavailable`."""
        try:
            metadata_by_topic = self._admin.list_topics(timeout=TIMEOUT_S).topics
        except KafkaException as error:
            raise self._to_unavailable("list its topics", error) from error
        return [
            TopicPartition(topic, number)
            for topic in topics
            if topic in metadata_by_topic
            for number in metadata_by_topic[topic].partitions
        ]

    def filter_committed(self, lane: str, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Those of these partitions in which the lane's group has ever committed; raises `Unavailable`."""
        return set(self.fetch_committed(lane, partitions))

    def fetch_committed(self, lane: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets that the lane's group has committed in these partitions; raises `Unavailable`."""
        return {partition: offset for partition, (offset, _) in self.fetch_commits(lane, partitions).items()}

    def fetch_commits(self, lane: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """The offsets that the lane's group has committed in these partitions, with their metadata.

        Raises `Unavailable`.
        """
        request = ConsumerGroupTopicPartitions(
            self._group_id(lane), [KafkaPartition(*partition) for partition in partitions]
        )
        if not request.topic_partitions:
            return {}
        try:
            (future,) = self._admin.list_consumer_group_offsets([request], request_timeout=TIMEOUT_S).values()
            committed = future.result().topic_partitions
        except KafkaException as error:
            raise self._to_unavailable(f"return the committed offsets of {request.group_id}", error) from error
        return {
            TopicPartition(tp.topic, tp.partition): (tp.offset, tp.metadata or "") for tp in committed if tp.offset >= 0
        }

    def fetch_record_limits(self, topics: Iterable[str]) -> dict[str, int]:
        """The largest batch of records, in bytes, that each of these topics takes; raises `Unavailable`."""
        if not self._has_topic_ids:  # the mock cluster never answers this request
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        try:
            replies = self._admin.describe_configs(resources, request_timeout=TIMEOUT_S)
            return {
                resource.name: int(future.result()["max.message.bytes"].value) for resource, future in replies.items()
            }
        except KafkaException as error:
            raise self._to_unavailable("return the settings of its topics", error) from error

    def create_topics(self, topics: TopicSettings, replication: int = 1) -> list[str]:
        """Create the topics that do not exist yet, erasures and products as compacted; returns the new names."""
        names = list(topics.names_by_kind().values())
        compacted = {topics.erasures, topics.products}
        new = [
            NewTopic(
                name, topics.partitions, replication, config={"cleanup.policy": "compact"} if name in compacted else {}
            )
            for name in names
        ]
        created = []
        for name, future in self._admin.create_topics(new, request_timeout=30).items():
            try:
                future.result()
                created.append(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise self._to_unavailable(f"create `{name}`", error) from error
        return created

    @property
    def _admin(self) -> Any:
        """The client, after the lines of its log so far were written: only a poll does that."""
        self._client.poll(0)
        return self._client

    def _connect(self) -> AdminClient:
        return AdminClient(self._configuration, logger=client_log)

    def _to_unavailable(self, action: str, error: KafkaException) -> Unavailable:
        """The error to raise. After a time-out the next request has a new client.

        Where a coordinator went away, librdkafka may go on waiting for it when it is back.
        """
        if error.args[0].code() == KafkaError._TIMED_OUT:
            self._client = self._connect()
        return Unavailable(f"Kafka should {action}. Found: {error}")

    @staticmethod
    def _exists(future: Any) -> bool:
        error = future.exception()
        if error is not None and error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise error
        return error is None
