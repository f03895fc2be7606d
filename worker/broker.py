"""Questions to the Kafka cluster itself: which topics there are, under which ids, who has worked; and making topics."""

from collections.abc import Callable, Iterable

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from contract.errors import Unavailable
from contract.settings import Kafka, Topics
from worker.intake import Place

NOT_READ_BY_KEY = ("partitions",)


class Broker:
    """An administrator's client of the cluster."""

    def __init__(self, *, kafka: Kafka) -> None:
        self._admin = AdminClient({**kafka.connection(), "log_level": 3})
        self._known, self._group = kafka.topic_ids, kafka.group

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """The id of each topic that exists; nothing from a broker that does not tell ids."""
        return self.ask_topic_ids(topics)()

    def ask_topic_ids(self, topics: Iterable[str]) -> Callable[[], dict[str, str]]:
        """Ask for `topic_ids`; what is returned waits for the answer."""
        asked = list(topics)
        found = self._admin.describe_topics(TopicCollection(asked), request_timeout=10) if self._known and asked else {}

        def answer() -> dict[str, str]:
            try:
                return {topic: str(future.result().topic_id) for topic, future in found.items() if self._exists(future)}
            except KafkaException as error:
                raise Unavailable(f"Kafka should describe its topics. Found: {error}") from error

        return answer

    def places(self, topics: Iterable[str]) -> list[Place]:
        """Every partition of those topics that exist; raises `Unavailable`."""
        try:
            known = self._admin.list_topics(timeout=10).topics
        except KafkaException as error:
            raise Unavailable(f"Kafka should list its topics. Found: {error}") from error
        return [Place(topic, number) for topic in topics if topic in known for number in known[topic].partitions]

    def worked(self, lane: str, places: Iterable[Place]) -> set[Place]:
        """In which of these partitions a lane has committed anything, ever; raises `Unavailable`."""
        asked = ConsumerGroupTopicPartitions(self._group(lane), [TopicPartition(*place) for place in places])
        if not asked.topic_partitions:
            return set()
        try:
            (future,) = self._admin.list_consumer_group_offsets([asked], request_timeout=10).values()
            found = future.result().topic_partitions
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell what {asked.group_id} has committed. Found: {error}") from error
        return {Place(one.topic, one.partition) for one in found if one.offset >= 0}

    def create(self, topics: Topics, replication: int = 1) -> list[str]:
        """Create the topics that do not exist yet; erasures are compacted. Returns the names of the new ones."""
        names = [topics.of(kind) for kind in type(topics).model_fields if kind != "partitions"]
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
                    raise Unavailable(f"Kafka should create `{name}`. Found: {error}") from error
        return created

    def _exists(self, future: object) -> bool:
        error = future.exception()  # type: ignore[attr-defined]
        if error is not None and error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise error
        return error is None
