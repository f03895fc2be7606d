"""Labels that remained without a row, each counted once however often it is read again. Pure.

An orphan is final when the group's position has passed its record: no life reads it again. How many are final is
committed together with the positions, and the next life goes on from there.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from contract.joining.output import Orphan
from worker.intake import Place

read_note: Final = msgspec.json.Decoder(dict[str, int]).decode


class Tally:
    """Orphans by task. At most `limit` of a partition wait to be final; the oldest of more are taken to be."""

    def __init__(self, *, notes: Iterable[str], limit: int) -> None:
        """`notes`: what was committed with each position; the one that tells of most is the latest."""
        self._final: Counter[str] = max(map(counted, notes), key=Counter.total, default=Counter())
        self._limit = limit
        self._open: defaultdict[Place, list[tuple[int, str]]] = defaultdict(list)

    def add(self, orphans: Iterable[Orphan]) -> None:
        for task, _, origin in orphans:
            if origin is None:
                self._final[task] += 1
                continue
            waiting = self._open[Place(origin.topic, origin.partition)]
            heapq.heappush(waiting, (origin.offset, task))
            if len(waiting) > self._limit:
                self._final[heapq.heappop(waiting)[1]] += 1

    def note(self, positions: Mapping[Place, int]) -> str:
        """What to commit together with these positions."""
        for place, position in positions.items():
            waiting = self._open[place]
            while waiting and waiting[0][0] < position:
                self._final[heapq.heappop(waiting)[1]] += 1
        return msgspec.json.encode(self._final, order="sorted").decode() if self._final else ""

    def total(self) -> Counter[str]:
        """All that are known, final or not."""
        return self._final + Counter(task for waiting in self._open.values() for _, task in waiting)


def counted(note: str) -> Counter[str]:
    """The counts in a note; none in one that somebody else has written."""
    try:
        return Counter(read_note(note or "{}"))
    except msgspec.DecodeError:
        return Counter()
