"""The Kafka admin client: which topics exist, their ids and committed offsets; creates topics."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from contract.settings.servers import KafkaSettings, TopicSettings
from transport.admin_connection import AdminConnection
from transport.group_offsets import fetch_commits
from transport.records import TopicPartition
from transport.topic_watcher import read_topic_id

TIMEOUT_S: Final = 10.0
CREATE_TIMEOUT_S: Final = 30.0
DESCRIBE: Final = "describe its topics"
READ_CONFIGS: Final = "return the settings of its topics"
NO_CONFIGS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({})
DENIED: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
UNSUPPORTED: Final = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)


@dataclass(frozen=True, slots=True)
class TopicSetup:
    """A topic as it is: `replicas` of its first partition, `config` as in effect (None: the user may not read it).

    `topic_id` is empty if the broker has none for any topic. `is_denied`: the user may not see the topic, which may or
    may not exist.
    """

    partitions: int
    replicas: int
    topic_id: str
    config: Mapping[str, str] | None
    is_denied: bool = False


DENIED_TOPIC: Final = TopicSetup(0, 0, "", None, is_denied=True)


class KafkaAdmin:
    """Queries a cluster and creates its topics."""

    def __init__(self, *, kafka: KafkaSettings) -> None:
        self._connection = AdminConnection(kafka=kafka)
        self._kafka, self._has_topic_ids = kafka, kafka.topic_ids

    def fetch_topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The id of each topic that exists; empty from a broker without topic ids."""
        return self.request_topic_ids(topics)()

    def request_topic_ids(self, topics: Iterable[str]) -> Callable[[], dict[str, str]]:
        """Send the request of `fetch_topic_ids`; the returned function waits for the answer."""
        names = list(topics)
        futures: dict[str, Any] = {}
        with self._connection.request(DESCRIBE) as client:
            if self._has_topic_ids and names:
                futures = client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)

        def wait() -> dict[str, str]:
            with self._connection.request(DESCRIBE, client):  # which exists until its futures are done
                return {
                    topic: str(future.result().topic_id) for topic, future in futures.items() if self._exists(future)
                }

        return wait

    def list_partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        """Every partition of those topics that exist; raises `Unavailable`."""
        with self._connection.request("list its topics") as client:
            metadata_by_topic = client.list_topics(timeout=TIMEOUT_S).topics
        return [
            TopicPartition(topic, number)
            for topic in topics
            if topic in metadata_by_topic
            for number in metadata_by_topic[topic].partitions
        ]

    def count_brokers(self) -> int:
        with self._connection.request("name its brokers") as client:
            return len(client.list_topics(timeout=TIMEOUT_S).brokers)

    def list_brokers(self) -> dict[int, tuple[str, int]]:
        """The address that each broker advertises, by its id; raises `Unavailable`."""
        with self._connection.request("name its brokers") as client:
            brokers = client.list_topics(timeout=TIMEOUT_S).brokers
        return {ident: (broker.host, broker.port) for ident, broker in brokers.items()}

    def fetch_broker_config(self) -> dict[str, str] | None:
        """The settings of one broker; None if the user may not read them. Raises `Unavailable`."""
        brokers = self.list_brokers()
        with self._connection.request("return the settings of a broker") as client:
            resource = ConfigResource(ResourceType.BROKER, str(min(brokers)))
            (reply,) = client.describe_configs([resource], request_timeout=TIMEOUT_S).values()
            try:
                return {name: entry.value or "" for name, entry in reply.result().items()}
            except KafkaException as error:
                if error.args[0].code() not in (*DENIED, *UNSUPPORTED):
                    raise
                return None

    def fetch_operations(self, topics: Iterable[str]) -> dict[str, set[str]]:
        """What this user may do with each topic that exists, as names of operations; none from brokers that do not say.

        Raises `Unavailable`.
        """
        with self._connection.request(DESCRIBE) as client:
            try:
                futures = client.describe_topics(
                    TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=TIMEOUT_S
                )
                descriptions = {
                    topic: future.result()
                    for topic, future in futures.items()
                    if not self._is_denied(future) and self._exists(future)
                }
            except KafkaException as error:
                if error.args[0].code() not in UNSUPPORTED:
                    raise
                return {}
        return {
            topic: {operation.name for operation in description.authorized_operations}
            for topic, description in descriptions.items()
            if description.authorized_operations
        }

    def describe_topics(self, topics: Iterable[str]) -> dict[str, TopicSetup]:
        """Each of these topics that exists, and those that the user may not see; raises `Unavailable`."""
        names = list(topics)
        if not names:
            return {}
        with self._connection.request(DESCRIBE) as client:
            futures = client.describe_topics(TopicCollection(names), request_timeout=TIMEOUT_S)
            denied = {topic for topic, future in futures.items() if self._is_denied(future)}
            descriptions = {
                topic: future.result()
                for topic, future in futures.items()
                if topic not in denied and self._exists(future)
            }
        configs = self._read_configs(descriptions)
        return dict.fromkeys(denied, DENIED_TOPIC) | {
            topic: TopicSetup(
                len(description.partitions),
                len(description.partitions[0].replicas) if description.partitions else 0,
                read_topic_id(description) or "",
                configs[topic],
            )
            for topic, description in descriptions.items()
        }

    def _read_configs(self, topics: Iterable[str]) -> dict[str, Mapping[str, str] | None]:
        resources = {ConfigResource(ResourceType.TOPIC, topic): topic for topic in topics}
        if not resources:
            return {}
        configs: dict[str, Mapping[str, str] | None] = {}
        with self._connection.request(READ_CONFIGS) as client:
            replies = client.describe_configs(list(resources), request_timeout=TIMEOUT_S)
            for resource, reply in replies.items():
                try:
                    configs[resource.name] = {name: entry.value or "" for name, entry in reply.result().items()}
                except KafkaException as error:
                    if error.args[0].code() not in (*DENIED, *UNSUPPORTED):
                        raise
                    configs[resource.name] = None
        return configs

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
        return fetch_commits(self._kafka, self._kafka.group(lane), partitions)

    def fetch_record_limits(self, topics: Iterable[str]) -> dict[str, int]:
        """The largest batch of records, in bytes, that each of these topics takes; raises `Unavailable`."""
        if not self._has_topic_ids:  # the mock cluster never answers this request
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
        with self._connection.request(READ_CONFIGS) as client:
            replies = client.describe_configs(resources, request_timeout=TIMEOUT_S)
            return {
                resource.name: int(future.result()["max.message.bytes"].value) for resource, future in replies.items()
            }

    def create_topics(
        self, topics: TopicSettings, replication: int = 1, configs: Mapping[str, Mapping[str, str]] = NO_CONFIGS
    ) -> list[str]:
        """Create the topics that do not exist yet; returns the new names. `configs`: settings by kind."""
        new = [
            NewTopic(name, topics.partitions, replication, config=dict(configs.get(kind, {})))
            for kind, name in topics.names_by_kind().items()
        ]
        with self._connection.request("create topics") as client:
            created = client.create_topics(new, request_timeout=CREATE_TIMEOUT_S)
        return [name for name, future in created.items() if self._is_created(client, name, future)]

    def _is_created(self, client: Any, name: str, future: Any) -> bool:
        """Whether a topic is new, not one that exists already."""
        with self._connection.request(f"create `{name}`", client):
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return False
        return True

    @staticmethod
    def _is_denied(future: Any) -> bool:
        error = future.exception()
        return isinstance(error, KafkaException) and error.args[0].code() in DENIED

    @staticmethod
    def _exists(future: Any) -> bool:
        error = future.exception()
        if error is not None and error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise error
        return error is None
