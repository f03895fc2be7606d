"""Which rights a user of Kafka needs, and the commands that grant them to one who lacks some."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from contract.settings.servers import KafkaSettings

WRITTEN_KINDS: Final = (
    "decisions",
    "rankings",
    "scored",
    "feedback",
    "judgements",
    "erased",
    "erasures",
    "dead_letters",
)
UNREAD_KINDS: Final = ("classifications", "erased", "dead_letters")
ACL_COMMAND: Final = "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:{user}"
UNKNOWN_USER: Final = "NAME"  # of a client that logs in by a certificate or a token
TOPIC, GROUP, TRANSACTIONAL_ID = "Topic authorization failed", "Group authorization failed", "Transactional Id auth"
CLUSTER: Final = "Cluster authorization failed"  # of a producer without a transactional id, before Kafka 3.0


class Grants(NamedTuple):
    """The commands that grant rights to the user of some settings."""

    servers: str
    user: str
    group_prefix: str

    @classmethod
    def of(cls, kafka: KafkaSettings) -> "Grants":
        user = str(kafka.client.get("sasl.username") or UNKNOWN_USER)
        return cls(kafka.bootstrap_servers, user, kafka.group_prefix)

    def topic(self, name: str, operations: Iterable[str]) -> str:
        return f"{self._begin} {' '.join(f'--operation {o.title()}' for o in operations)} --topic {name}"

    def groups(self) -> str:
        return f"{self._begin} --operation Read --group {self.group_prefix} --resource-pattern-type prefixed"

    def transactional_ids(self) -> str:
        return (
            f"{self._begin} --operation Write --operation Describe --transactional-id {self.group_prefix}"
            " --resource-pattern-type prefixed"
        )

    def lock(self, name: str) -> str:
        """The group and the transactional id of one name; see `worker.kafka.topic_owner`."""
        return (
            f"{self._begin} --operation Read --group {name} && "
            f"{self._begin} --operation Write --operation Describe --transactional-id {name}"
        )

    def cluster(self) -> str:
        return f"{self._begin} --operation IdempotentWrite --cluster"

    @property
    def _begin(self) -> str:
        return ACL_COMMAND.format(servers=self.servers, user=self.user)


def list_operations(kind: str) -> list[str]:
    """What processes do with the topic of a kind."""
    return [*([] if kind in UNREAD_KINDS else ["READ"]), *(["WRITE"] if kind in WRITTEN_KINDS else [])]


def explain_denied(error: str, lacking: Mapping[str, Sequence[str]], grants: Grants) -> str | None:
    """The right that an error of Kafka is about, and the command that grants it; None for another error.

    `lacking`: the operations that the user may not do, by topic.
    """
    if TOPIC in error:
        named = {name: operations for name, operations in lacking.items() if name in error} or lacking
        commands = "; ".join(grants.topic(name, named[name]) for name in named) or grants.topic("TOPIC", ["Read"])
    elif GROUP in error:
        commands = grants.groups()
    elif TRANSACTIONAL_ID in error:
        commands = grants.transactional_ids()
    elif CLUSTER in error:
        commands = grants.cluster()
    else:
        return None
    return f"The user {grants.user} should be allowed what this process does. {error} Allow it: {commands}"


def explain_lacking(lacking: Mapping[str, Sequence[str]], grants: Grants) -> str:
    """What the user may not do with which topics, and the commands that allow it."""
    names = ", ".join(f"`{name}` ({', '.join(operations)})" for name, operations in lacking.items())
    commands = "; ".join(grants.topic(name, operations) for name, operations in lacking.items())
    return f"The user {grants.user} should be allowed to use topics. Found it denied for {names}. Allow it: {commands}"
