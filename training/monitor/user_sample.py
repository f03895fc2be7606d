"""A block of rows for drift tests: one row per user, of users sampled by a hash, in bounded memory.

Drift tests assume independent rows, and the rows of one user are alike: a few very active users would raise alarms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.features.packing import PackedBlock
from contract.hashing import HASH_RANGE, hash_text
from contract.joining.examples import row_at
from contract.messages import ScoredRow
from contract.profiles.erasures import Erasures

OVERSAMPLING: Final = 2  # users kept before the sample is cut, as a multiple of its size


@dataclass(frozen=True, slots=True)
class SampledRow:
    """One row of each group, with its scores and the version that made them. `order`: the hash of its event."""

    order: int
    user_id: str
    ts_ms: int
    groups: Mapping[str, PackedBlock]
    scores: Mapping[str, float]
    version: str


class UserSample:
    """Samples `size` users and one row of each; another `seed` samples other users."""

    def __init__(self, *, size: int, seed: int) -> None:
        self.rows = 0
        self.first_ms = self.last_ms = 0
        self.seed, self._size = seed, size
        self._rows_by_user: dict[str, tuple[int, SampledRow]] = {}
        self._threshold = HASH_RANGE

    def __len__(self) -> int:
        return min(len(self._rows_by_user), self._size)

    def __iter__(self) -> Iterator[SampledRow]:
        return iter([row for _, row in sorted(self._rows_by_user.values(), key=lambda entry: entry[0])[: self._size]])

    @property
    def span_ms(self) -> int:
        return self.last_ms - self.first_ms

    def add(self, row: ScoredRow) -> None:
        """Count a row, and keep it if its user and then the row itself are sampled."""
        self.first_ms = min(self.first_ms, row.ts_ms) if self.rows else row.ts_ms
        self.last_ms = max(self.last_ms, row.ts_ms)
        self.rows += 1
        user_hash = hash_text(f"{self.seed}={row.user_id}")
        if user_hash >= self._threshold:
            return
        order = hash_text(f"{self.seed}~{row.event_id}")
        previous = self._rows_by_user.get(row.user_id)
        if previous is None or order < previous[1].order:
            self._rows_by_user[row.user_id] = (user_hash, sample_row(row, order))
            if len(self._rows_by_user) >= OVERSAMPLING * self._size:
                self._tighten_threshold()

    def erase(self, erasures: Erasures) -> None:
        """Remove the rows that an erasure covers; they still count in `rows` and in the span."""
        self._rows_by_user = {
            user: entry for user, entry in self._rows_by_user.items() if not erasures.covers(user, entry[1].ts_ms)
        }

    def _tighten_threshold(self) -> None:
        """Keep the `size` users of the lowest hashes, and none above from now on."""
        user_hashes = np.array([user_hash for user_hash, _ in self._rows_by_user.values()], np.uint64)
        self._threshold = int(np.partition(user_hashes, self._size)[self._size])
        self._rows_by_user = {user: entry for user, entry in self._rows_by_user.items() if entry[0] < self._threshold}


def sample_row(row: ScoredRow, order: int) -> SampledRow:
    """One item of the row, chosen by `order`; blocks that have neither one row nor one row per item are left out."""
    item_number = order % len(row.items) if row.items else 0
    complete = {
        group: block for group, block in row.groups.items() if block.rows == (len(row.items) or 1) or block.rows == 1
    }
    groups = {group: row_at(block, item_number if block.rows > 1 else 0) for group, block in complete.items()}
    scores = {
        task: values[item_number if item_number < len(values) else 0] for task, values in row.scores.items() if values
    }
    return SampledRow(order, row.user_id, row.ts_ms, groups, scores, row.model_version)
