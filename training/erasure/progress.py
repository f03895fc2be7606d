"""How far a process of training has carried erasures out: offsets of the erasures topic, committed under its group.

Score workers of the orders lane confirm an erasure once every group that ever committed there has passed it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from contract.settings.servers import KafkaSettings
from transport.group_offsets import commit_offsets
from transport.records import TopicPartition

COMMIT_EVERY_S: Final = 3_600.0  # a broker forgets offsets that were not committed for days


class ErasureProgress:
    """Commits the progress of the learner or the monitor."""

    def __init__(self, *, kafka: KafkaSettings, process: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        """`process`: `learner` or `monitor`, the last part of the group's name."""
        self._kafka, self._group = kafka, kafka.group(process)
        self._clock_s = clock_s
        self._committed: Mapping[TopicPartition, int] = {}
        self._committed_s = float("-inf")

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these offsets is erased, on the disk; raises `Unavailable`."""
        now_s = self._clock_s()
        if offsets != self._committed or now_s >= self._committed_s + COMMIT_EVERY_S:
            commit_offsets(self._kafka, self._group, offsets)
            self._committed, self._committed_s = dict(offsets), now_s
