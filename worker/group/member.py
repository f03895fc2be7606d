"""A member of a consumer group through all its clients: one that is of no more use is replaced by another.

That is so where the broker has fenced the member, where the group has removed the one that the partitions were assigned
to, and where no broker answers. What is read of the partitions is left to `worker.group.consumer`.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport.client_log import create_client
from transport.records import TopicPartition
from worker.group.consumer_client import build_configuration, close_client
from worker.group.instance_name import InstanceName, MemberId
from worker.ops import metrics

log = logging.getLogger(__name__)
REJOIN_WAIT_S: Final = 1.0
REJOIN_WAIT_MAX_S: Final = 16.0
# A client forgets brokers that their cluster does not list, such as one that has just started, and never asks again:
# https://github.com/confluentinc/librdkafka/issues/5301
CLIENT_AWAY_S: Final = 10.0
AWAY: Final = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
Strategy: TypeAlias = Literal["cooperative-sticky", "range"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentCallbacks:
    """What a member calls, within a call of its client."""

    assigned: Callable[[list[TopicPartition]], None]  # it calls `GroupMember.assign`
    revoked: Callable[[list[TopicPartition]], None]  # it calls `GroupMember.forget`
    closed: Callable[[], None]  # the client was closed, to be replaced: it calls `forget` for what was not revoked


class GroupMember:
    """A static member of its group; after its client was replaced it waits for some time before it joins again."""

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        group: str,
        instance: str,
        skips_gaps: bool,
        strategy: Strategy,
        callbacks: AssignmentCallbacks,
    ) -> None:
        self.is_eager = strategy == "range"
        self._callbacks = callbacks
        self._session_s = kafka.session_timeout_ms / 1000
        self._name = InstanceName(group=group, instance=instance, session_s=self._session_s)
        self._id = MemberId()
        self._topics: list[str] = []
        self.assignment: Final = set[TopicPartition]()
        self.brokers_down = False
        self._client_due_s = time.monotonic() + CLIENT_AWAY_S  # when to try a new client if no broker answers this one
        self._closing = self._is_fenced = False
        self._rejoin_due_s: float | None = None  # of a member whose client was replaced
        self._rejoin_wait_s = REJOIN_WAIT_S
        self._configuration = build_configuration(
            kafka, self._name, skips_gaps=skips_gaps, strategy=strategy, on_error=self._on_error
        )
        self.client = create_client(Consumer, self._configuration)

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group for these topics."""
        self._topics = list(topics)
        self.client.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def rejoin_when_due(self) -> bool:
        """Join again once that is due; whether this member has joined."""
        if self._rejoin_due_s is None:
            return True
        if time.monotonic() < self._rejoin_due_s:
            return False
        self._rejoin_due_s = None
        if self._topics:
            self.subscribe(self._topics)
        return True

    def request_rebalance(self, reason: str) -> None:
        """Have the group assign its partitions again; `reason` is logged.

        A cooperative rebalance takes two rounds, and a static member that restarts between them gets what the first one
        gave it: the partitions that were moving then stay without a member. The broker begins another rebalance for a
        member whose subscription or partitions have changed since it joined.
        """
        if self._topics and self._rejoin_due_s is None:
            log.warning("Asking the group for another rebalance: %s", reason)
            self.client.unsubscribe()
            self.subscribe(self._topics)

    def assign(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions too, from these offsets."""
        self.assignment.update(starts)
        self._assign([KafkaPartition(*partition, offset) for partition, offset in starts.items()])
        # The client remembers that a partition was paused when it was revoked, and would not read from it again.
        self.client.resume([KafkaPartition(*partition) for partition in starts])

    def reassign(self, partition: KafkaPartition) -> None:
        """Read a partition of the assignment from another offset, where the client does not seek."""
        if self.is_eager:
            others = self.assignment - {TopicPartition(partition.topic, partition.partition)}
            positions = self.client.position([KafkaPartition(*other) for other in others])
            self.client.assign([*positions, partition])
            return
        self.client.incremental_unassign([partition])
        self.client.incremental_assign([partition])

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These partitions are no longer read, whatever the client knows of them."""
        self.assignment.difference_update(partitions)
        if not self.assignment:
            self._client_due_s = time.monotonic() + CLIENT_AWAY_S
            self._id.forget()

    def check_brokers(self) -> bool:
        """Replace the client if no broker has answered it for some time; whether it is kept.

        Also that of a member without partitions: a client that has forgotten all brokers may not report that.
        """
        if self.brokers_down or (not self.assignment and time.monotonic() >= self._client_due_s):
            self._query_brokers()
        return self._rejoin_due_s is None

    def check_id(self) -> bool:
        """Replace the client, which revokes the partitions, if they are those of a former member; whether they stay.

        None stay while the client joins by itself; without partitions there is nothing to check.
        """
        if not self.assignment:
            return True
        member_id = self.client.memberid()
        if self._id.is_kept(member_id):
            return True
        if member_id:
            self._replace_client("its partitions are those of a member that the group has removed since")
        return False

    def require_id(self) -> None:
        """Raise `Unavailable` where this is not, or not yet, the member that the partitions were assigned to."""
        if not self.check_id():
            raise Unavailable(
                "Kafka should take offsets of the member that read the records. Found that it joins again."
            )

    def fetch_metadata(self) -> Any:
        """What a transactional producer commits with for this member. Raises `Unavailable` as `require_id` does."""
        metadata = self.client.consumer_group_metadata()
        self.require_id()  # afterwards: what was joined since then is no part of this metadata
        return metadata

    def replace_fenced(self, reason: str) -> None:
        """Replace the client of a fenced member; raises `InstanceFenced` if another process has its name."""
        self._name.record_fence()
        self._replace_client(f"the broker fenced this member: {reason}")

    def replace_client(self, reason: str) -> None:
        """Join with a new client, unless that is due already."""
        if self._rejoin_due_s is None:
            self._replace_client(reason)

    def close(self) -> None:
        """Leave the group; partitions assigned from now on are paused, since the listener may be gone."""
        self._closing = True
        close_client(self.client, self.assignment)

    def _replace_client(self, reason: str) -> None:
        """Drop the partitions of a client that is of no more use, and plan to join with a new one."""
        log.warning("Joining the group again in %.0f s, %s", self._rejoin_wait_s, reason)
        metrics.REJOINS.inc()
        with suppress(KafkaException):
            close_client(self.client, self.assignment)  # which revokes the partitions
        self._callbacks.closed()
        self.client = create_client(Consumer, self._configuration)
        self._is_fenced, self._client_due_s = False, time.monotonic() + CLIENT_AWAY_S
        self._name.record_client()
        self._rejoin_due_s = time.monotonic() + self._rejoin_wait_s
        self._rejoin_wait_s = min(2 * self._rejoin_wait_s, REJOIN_WAIT_MAX_S)

    def _query_brokers(self) -> None:
        try:
            self.client.list_topics(timeout=1)
        except KafkaException as error:
            if time.monotonic() >= self._client_due_s:
                self._replace_client(f"no broker answers this client: {error.args[0].str()}")
            return
        self._client_due_s = time.monotonic() + CLIENT_AWAY_S
        if self.brokers_down:
            log.info("Kafka answers again.")
            metrics.WAITING.labels("kafka").set(0)
            self.brokers_down = False

    def _assign(self, partitions: list[KafkaPartition]) -> None:
        assign = self.client.assign if self.is_eager else self.client.incremental_assign
        assign(partitions)

    def _on_assign(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        if self._closing:
            self._assign(partitions)
            self.client.pause(partitions)
            return
        self._rejoin_wait_s = REJOIN_WAIT_S
        self._callbacks.assigned([TopicPartition(tp.topic, tp.partition) for tp in partitions])

    def _on_revoke(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        self._callbacks.revoked([TopicPartition(tp.topic, tp.partition) for tp in partitions])
        if self.is_eager:
            self.client.unassign()
        else:
            self.client.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        if not self._is_fenced:  # the session ran out
            self._name.record_outage()
        for tp in partitions:
            partition = TopicPartition(tp.topic, tp.partition)
            log.warning(
                "Lost %s: the session ran out, or another member joined under this name.",
                partition.log_text(),
                extra=partition.log_fields(),
            )
        self._on_revoke(consumer, partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._is_fenced = True
        elif error.code() in AWAY:
            self._name.record_outage()
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self.brokers_down:
            servers = self._configuration["bootstrap.servers"]
            log.warning("No Kafka broker of %s answers, the client retries: %s", servers, error.str())
            metrics.WAITING.labels("kafka").set(1)
            self.brokers_down = True
            # Of a member with partitions the session is to have ended: it would lose them to a short absence otherwise.
            self._client_due_s = time.monotonic() + max(CLIENT_AWAY_S, self._session_s if self.assignment else 0.0)
