"""Owners that record their progress in Kafka, as committed offsets: the joiner, the learner and the monitor.

A group that never committed is left out. One that is retired has to be deleted, or confirmations wait for it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from contract.mapping.event_topics import EventTopics
from contract.settings.servers import TopicSettings
from worker.erasure.owners import ErasureOwners
from worker.erasure.progress import ErasureOffsets, ErasureProgress
from worker.kafka.admin import KafkaAdmin
from worker.state.profile_store import source_name

JOINER_GROUP: Final = "feedback"
JOINED_KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")
TRAINING_PROCESSES: Final = ("learner", "monitor")  # the last part of their groups' names
PAUSE_MIN_S: Final = 1.0
PAUSE_MAX_S: Final = 10.0


class ErasedOffsets(Struct, frozen=True, gc=False, omit_defaults=True):
    """How far the erasures topic is executed, as it is committed along with an offset (at most 4,096 bytes).

    `offsets`: by the number of the partition, without those that are at 0. `topic_id`: empty where the broker has none.
    """

    topic_id: str = ""
    offsets: dict[str, int] = {}

    def by_name(self) -> dict[str, int]:
        """The offsets by the name of the partition in progress records."""
        return {source_name("erasures", self.topic_id or None, int(n)): offset for n, offset in self.offsets.items()}


NOTHING_ERASED: Final = ErasedOffsets()


class ErasedMetadata(Struct, frozen=True, gc=False):
    """The part of the joiner's commit metadata that confirmations read."""

    erased: ErasedOffsets = NOTHING_ERASED


decode_json: Final = msgspec.json.Decoder(ErasedMetadata).decode


class JoinerOwners:
    """The partitions that the joiner reads: each commit says how far its process has executed erasures."""

    name: Final = "joiner"

    def __init__(self, *, topics: EventTopics, admin: KafkaAdmin) -> None:
        self._topics, self._admin = topics, admin

    def read_offsets(self) -> dict[str, ErasureOffsets]:
        """See `ErasureOwners`: every partition in which the joiner's group has committed is an owner."""
        partitions = self._admin.list_partitions(self._topics.names_of(JOINED_KINDS))
        committed = self._admin.fetch_commits(JOINER_GROUP, partitions)
        return {f"{self.name}>{partition}": decode_erased(text) for partition, (_, text) in committed.items()}


class GroupOwners:
    """A process of training, `learner` or `monitor`: its group commits how far it has executed the topic itself."""

    def __init__(self, *, process: str, topics: TopicSettings, progress: ErasureProgress, admin: KafkaAdmin) -> None:
        self.name: Final = process
        self._topics, self._progress, self._admin = topics, progress, admin

    def read_offsets(self) -> dict[str, ErasureOffsets]:
        """See `ErasureOwners`: the group is the owner, if it has ever committed. Kafka forgets it with the topic."""
        committed = self._admin.fetch_committed(self.name, self._admin.list_partitions([self._topics.erasures]))
        offsets = {self._progress.partition_name(partition): offset for partition, offset in committed.items()}
        return {self.name: offsets} if offsets else {}


class RarelyAskedOwners:
    """Owners that are asked less often the longer their answer stays the same: each time costs Kafka a request.

    An old answer is safe: offsets only grow, and a group that is new by now has read every erasure before.
    """

    def __init__(self, owners: ErasureOwners, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._owners = owners
        self._clock_s = clock_s
        self._answer: Mapping[str, ErasureOffsets] = {}
        self._asked_s, self._pause_s = float("-inf"), 0.0

    @property
    def name(self) -> str:
        return self._owners.name

    def read_offsets(self) -> Mapping[str, ErasureOffsets]:
        """See `ErasureOwners`."""
        now_s = self._clock_s()
        if now_s < self._asked_s + self._pause_s:
            return self._answer
        answer = self._owners.read_offsets()
        is_waiting = answer == self._answer and now_s < self._asked_s + 2 * PAUSE_MAX_S
        self._pause_s = min(max(2 * self._pause_s, PAUSE_MIN_S), PAUSE_MAX_S) if is_waiting else 0.0
        self._answer, self._asked_s = answer, now_s
        return answer


def decode_erased(metadata: str) -> dict[str, int]:
    """The offsets in the joiner's commit metadata; none if an earlier version wrote it."""
    try:
        return decode_json(metadata or "{}").erased.by_name()
    except (msgspec.MsgspecError, ValueError):
        return {}
