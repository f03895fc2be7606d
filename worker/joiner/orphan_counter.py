"""Labels that remained without a row, each counted once however often it is read again. Pure.

An orphan is final when the group's position has passed its record: no life reads it again. How many are final is
committed together with the positions (`worker.joiner.commit_metadata`), and the next life goes on from there.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from contract.joining.output import OrphanLabel
from transport.records import TopicPartition


class OrphanCounter:
    """Orphans by task. At most `limit` of a partition wait to be final; the oldest of more are taken to be."""

    def __init__(self, *, final: Iterable[Mapping[str, int]], limit: int) -> None:
        """`final`: what was committed with each position; the one that tells of most is the latest."""
        self._final: Counter[str] = max(map(Counter[str], final), key=Counter.total, default=Counter())
        self._limit = limit
        self._open: defaultdict[TopicPartition, list[tuple[int, str]]] = defaultdict(list)

    def add(self, orphans: Iterable[OrphanLabel]) -> None:
        for task, _, origin in orphans:
            if origin is None:
                self._final[task] += 1
                continue
            waiting = self._open[TopicPartition(origin.topic, origin.partition)]
            heapq.heappush(waiting, (origin.offset, task))
            if len(waiting) > self._limit:
                self._final[heapq.heappop(waiting)[1]] += 1

    def finalize(self, positions: Mapping[TopicPartition, int]) -> dict[str, int]:
        """What to commit together with these positions."""
        for partition, position in positions.items():
            waiting = self._open[partition]
            while waiting and waiting[0][0] < position:
                self._final[heapq.heappop(waiting)[1]] += 1
        return dict(self._final)

    def total(self) -> Counter[str]:
        """All that are known, final or not."""
        return self._final + Counter(task for waiting in self._open.values() for _, task in waiting)
