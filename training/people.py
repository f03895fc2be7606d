"""A block of rows to compare: at most one row of each person, of people drawn by a hash, in bounded memory.

A person's rows are alike, and tests of drift take rows for independent: a few busy people would raise alarms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.hashing import digest
from contract.joining.served import one_row
from contract.rows import Packed, Scored

SPARE: Final = 2  # so many times more people than wanted are kept before some have to go


@dataclass(frozen=True, slots=True)
class Taken:
    """One row of each group, and what was said of it by which version."""

    order: int
    groups: Mapping[str, Packed]
    scores: Mapping[str, float]
    version: str


class People:
    """Draws `size` people of all that come, and one row of each; `number`: draws of another one are other people."""

    def __init__(self, *, size: int, number: int) -> None:
        self.rows = 0
        self.first_ms = self.last_ms = 0
        self.number, self._size = number, size
        self._found: dict[str, tuple[int, Taken]] = {}
        self._below = 2**64

    def __len__(self) -> int:
        return min(len(self._found), self._size)

    def __iter__(self) -> Iterator[Taken]:
        return iter([taken for _, taken in sorted(self._found.values(), key=lambda one: one[0])[: self._size]])

    @property
    def span_ms(self) -> int:
        return self.last_ms - self.first_ms

    def add(self, row: Scored) -> None:
        """Count a row, and keep it if its person and then the row itself are drawn."""
        self.first_ms = min(self.first_ms, row.ts_ms) if self.rows else row.ts_ms
        self.last_ms = max(self.last_ms, row.ts_ms)
        self.rows += 1
        place = digest(f"{self.number}={row.user_id}")
        if place >= self._below:
            return
        order, known = digest(f"{self.number}~{row.event_id}"), self._found.get(row.user_id)
        if known is None or order < known[1].order:
            self._found[row.user_id] = (place, taken(row, order))
            if len(self._found) >= SPARE * self._size:
                self._narrow()

    def _narrow(self) -> None:
        """Let those go who would not be drawn."""
        places = np.array([place for place, _ in self._found.values()], np.uint64)
        self._below = int(np.partition(places, self._size)[self._size])
        self._found = {user: one for user, one in self._found.items() if one[0] < self._below}


def taken(row: Scored, order: int) -> Taken:
    """The row, of its items one that is drawn by the row's own hash; without blocks that do not have one row each."""
    at = order % len(row.items) if row.items else 0
    whole = {
        group: block for group, block in row.groups.items() if block.rows == (len(row.items) or 1) or block.rows == 1
    }
    groups = {group: one_row(block, at if block.rows > 1 else 0) for group, block in whole.items()}
    scores = {task: values[at if at < len(values) else 0] for task, values in row.scores.items() if values}
    return Taken(order, groups, scores, row.model_version)
