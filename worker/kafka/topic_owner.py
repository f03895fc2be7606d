"""Who writes a topic of answers: a lock in Kafka that no two shops hold at once, see docs/decisions/0033.

The owner of a topic is a group prefix: the metadata of an offset that is committed under a group named after the topic.
It is committed in a transaction whose id is named after the topic as well, so of two claims at the same time the later
one fences the earlier, or finds what it has committed.
"""

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import BadConfig, Unavailable
from contract.settings.servers import KafkaSettings
from transport.client_errors import translate_errors
from transport.client_log import create_client
from transport.group_offsets import commit_offsets, fetch_commits
from transport.log_consumer import create_consumer
from transport.records import TopicPartition
from worker.ops.denied_rights import Grants

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
RENEW_S: Final = 3_600.0  # brokers drop offsets of a group without members, after seven days by default
OFFSET: Final = 0  # of no meaning: the metadata counts
DENIED: Final = (
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)
NO_OWNER: Final = ""
OPTIONS: Final[Mapping[str, Any]] = MappingProxyType(
    {"transaction.timeout.ms": 10_000, "log_level": 3, "error_cb": lambda error: None}
)


def lock_name(topic: str) -> str:
    """The group and the transactional id of a topic's lock."""
    return f"{topic}.owner"


class TopicOwnership:
    """The claim of this shop on the topics that one process writes; it is renewed until closed."""

    def __init__(self, *, kafka: KafkaSettings, topics: Iterable[str]) -> None:
        self._kafka, self._topics = kafka, list(topics)
        self._stop = threading.Event()

    def claim(self) -> None:
        """Own the topics from now on; raises `BadConfig` if another shop writes one, and `Unavailable`.

        Where the user may not use the lock, a warning says so and the topic is not protected.
        """
        for topic in self._topics:
            try:
                self._claim_topic(topic)
            except Unavailable as error:
                if not is_denied(error):
                    raise
                log.warning(
                    "This process should be allowed READ on `%s` and on the group `%s`, and WRITE on the transactional "
                    "id of that name. Found it denied: a second shop that writes this topic is not noticed. %s "
                    "Allow it: %s",
                    topic,
                    lock_name(topic),
                    error,
                    Grants.of(self._kafka).lock(lock_name(topic)),
                )
        threading.Thread(target=self._keep, name="topic-owner", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _claim_topic(self, topic: str) -> None:
        kafka = self._kafka
        if self._check_owner(topic) == kafka.group_prefix:
            return
        name = lock_name(topic)
        producer = open_producer(kafka, name)
        with (
            closing(create_consumer(kafka, {"group.id": name})) as consumer,
            translate_errors(f"record who writes `{topic}`"),
        ):
            producer.init_transactions(TIMEOUT_S)  # ends the claims of others
            if self._check_owner(topic) == kafka.group_prefix:
                return
            producer.begin_transaction()
            producer.send_offsets_to_transaction(
                [KafkaPartition(topic, 0, OFFSET, metadata=kafka.group_prefix)],
                consumer.consumer_group_metadata(),
                TIMEOUT_S,
            )
            producer.commit_transaction(TIMEOUT_S)
        log.info("`%s` is written by the groups of `%s` from now on.", topic, kafka.group_prefix)

    def _check_owner(self, topic: str) -> str:
        """The owner; raises `BadConfig` if this shop may not write the topic."""
        owner = fetch_owner(self._kafka, topic)
        if owner not in (NO_OWNER, self._kafka.group_prefix, self._kafka.former_group_prefix):
            raise BadConfig([explain_owner(topic, owner, self._kafka.group_prefix)])
        return owner

    def _keep(self) -> None:
        """Commit the claim again, so that it does not expire while this process runs."""
        while not self._stop.wait(RENEW_S):
            for topic in self._topics:
                try:
                    if fetch_owner(self._kafka, topic) == self._kafka.group_prefix:
                        metadata = {TopicPartition(topic, 0): self._kafka.group_prefix}
                        commit_offsets(self._kafka, lock_name(topic), {TopicPartition(topic, 0): OFFSET}, metadata)
                except Unavailable as error:
                    log.info("The claim on `%s` is renewed later: %s", topic, error)


def open_producer(kafka: KafkaSettings, transactional_id: str) -> Producer:
    return create_client(Producer, {**kafka.connection(), **OPTIONS, "transactional.id": transactional_id})


def try_transactional_id(kafka: KafkaSettings, transactional_id: str) -> None:
    """Initialise a producer of this id, which writes nothing; raises `Unavailable`, see `is_denied`."""
    with translate_errors(f"give out the transactional id {transactional_id}"):
        open_producer(kafka, transactional_id).init_transactions(TIMEOUT_S)


def fetch_owner(kafka: KafkaSettings, topic: str) -> str:
    """The group prefix of the shop that writes a topic, empty if none has claimed it; raises `Unavailable`."""
    partition = TopicPartition(topic, 0)
    _, owner = fetch_commits(kafka, lock_name(topic), [partition]).get(partition, (OFFSET, NO_OWNER))
    return owner


def explain_owner(topic: str, owner: str, group_prefix: str) -> str:
    return (
        f"`kafka.group_prefix` should be `{owner}`, that of the processes that write `{topic}`. "
        f"Found `{group_prefix}`, which would answer every record again into the same topic. "
        "Give a second shop topics of its own "
        f'(`topics.prefix`); to take this one over, stop those processes and set kafka.former_group_prefix = "{owner}".'
    )


def is_denied(error: Unavailable) -> bool:
    """Whether a request failed for lack of a right."""
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in DENIED
