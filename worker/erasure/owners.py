"""Who has to execute an erasure before it is confirmed: one part for each kind of process that holds a person's data.

A part answers one question, how far each of its owners has executed the erasures topic. The confirmer takes the lowest
answer of all parts; so another holder of data is one more part in `ErasureService`, and nothing else changes.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from contract.mapping.event_topics import EventTopics
from worker.erasure.progress import NO_OFFSETS, ErasureOffsets, ErasureProgress, owner_field
from worker.kafka.admin import KafkaAdmin
from worker.records.lanes import Lane


class ErasureOwners(Protocol):
    """Owners of one kind. An owner is whatever records progress of its own, such as a partition of a lane."""

    @property
    def name(self) -> str:
        """The kind of owners, as logs and metrics name it."""

    def read_offsets(self) -> Mapping[str, ErasureOffsets]:
        """By owner, the offsets up to which it has executed each partition of the erasures topic.

        An owner that never processed anything is left out; one that lost its progress has `NO_OFFSETS`. The owner's
        name is for logs. Raises `Unavailable`.
        """


class LaneOwners:
    """The partitions of one lane, each of which the score worker that owns it reports on."""

    def __init__(self, *, lane: Lane, topics: EventTopics, progress: ErasureProgress, admin: KafkaAdmin) -> None:
        self._lane, self._topics = lane, topics
        self._progress, self._admin = progress, admin

    @property
    def name(self) -> str:
        return self._lane.name

    def read_offsets(self) -> dict[str, ErasureOffsets]:
        """See `ErasureOwners`.

        A partition without progress in Redis and without a commit in Kafka was never processed. Redis alone is no
        proof: it may have lost the progress of a lane whose lists are on another server. Progress of partitions that no
        longer exist does not count.
        """
        progress, lane = self._progress.read(), self._lane
        partitions = self._admin.list_partitions(self._topics.names_of(lane.folded_kinds + lane.watched_kinds))
        partitions_worked = self._admin.filter_committed(lane.name, partitions)
        fields = {partition: owner_field(lane.name, partition) for partition in partitions}
        return {
            field: progress.get(field, NO_OFFSETS)
            for partition, field in fields.items()
            if field in progress or partition in partitions_worked
        }


class OwnerOffsets(NamedTuple):
    """The answers of all parts: by the name of the part and by owner."""

    offsets: Mapping[str, Mapping[str, ErasureOffsets]]

    def find_completed(self) -> ErasureOffsets:
        """The offset up to which all owners have executed each partition of the erasures topic."""
        by_owner = [offsets for owners in self.offsets.values() for offsets in owners.values()]
        names = {name for offsets in by_owner for name in offsets}
        return {name: min(offsets.get(name, 0) for offsets in by_owner) for name in names}

    def find_lagging(self, needed: ErasureOffsets) -> dict[str, list[str]]:
        """By the name of each part, its owners that have not reached the `needed` offset of a partition."""
        return {
            part: sorted(
                owner
                for owner, offsets in owners.items()
                if any(offsets.get(name, 0) < offset for name, offset in needed.items())
            )
            for part, owners in self.offsets.items()
        }


def read_owner_offsets(parts: Iterable[ErasureOwners]) -> OwnerOffsets:
    """Ask every part; raises `Unavailable`."""
    return OwnerOffsets({part.name: part.read_offsets() for part in parts})


def describe_owners(lagging: Mapping[str, list[str]]) -> str:
    """The first owner of each part that is waited for, and the number of its others."""
    return ", ".join(
        owners[0] + (f" and {len(owners) - 1} more of {part}" if len(owners) > 1 else "")
        for part, owners in lagging.items()
        if owners
    )
