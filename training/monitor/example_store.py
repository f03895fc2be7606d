"""A bounded store of examples: the newest revision of each, until its labels have matured and left the window.

Labels mature after days. Above the limit the store keeps the examples of fewer users, sampled by a hash of the user id:
lists stay complete, and the sample does not depend on behaviour.
"""

from collections.abc import Iterator
from typing import Final

from contract.hashing import HASH_RANGE, hash_text
from contract.messages import Example
from contract.profiles.erasures import Erasures

GROW_DIVISOR: Final = 4  # below this fraction of the limit the sample of users doubles


class ExampleStore:
    """The examples of one graph, at most `rows_max`."""

    def __init__(self, *, rows_max: int) -> None:
        self.share = 1.0  # of users that are sampled
        self._rows: dict[str, Example] = {}
        self._rows_max = rows_max

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._rows.values())

    def add(self, example: Example) -> None:
        """Store an example, unless a newer revision is stored or its user is not sampled."""
        previous = self._rows.get(example.example_id)
        is_newest = previous is None or previous.revision <= example.revision
        if is_newest and sampling_fraction(example.user_id) < self.share:
            self._rows[example.example_id] = example
            while len(self._rows) > self._rows_max:
                self._halve_sample()

    def evict_before(self, before_ms: int) -> None:
        """Remove older examples, and sample more users if few are left."""
        self._rows = {key: row for key, row in self._rows.items() if row.ts_ms >= before_ms}
        if len(self._rows) * GROW_DIVISOR < self._rows_max:
            self.share = min(2 * self.share, 1.0)

    def erase(self, erasures: Erasures) -> None:
        """Remove the examples that an erasure covers."""
        self._rows = {key: row for key, row in self._rows.items() if not erasures.covers(row.user_id, row.ts_ms)}

    def _halve_sample(self) -> None:
        """Keep half of the sampled users."""
        self.share /= 2
        self._rows = {key: row for key, row in self._rows.items() if sampling_fraction(row.user_id) < self.share}


def sampling_fraction(user_id: str) -> float:
    """A user is sampled while this number, from 0 to 1, is below the share; independent of the fraction of a canary."""
    return hash_text(f"watched={user_id}") / HASH_RANGE
