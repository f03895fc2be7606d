"""The figures of `bench erasure`, and whether they keep the promise."""

from collections.abc import Sequence
from typing import Final

import msgspec

from bench.results.statistics import min_median_max

GONE_MAX_S: Final = 60.0


class ErasureTimes(msgspec.Struct, frozen=True):
    """Seconds."""

    median: float
    max: float


class ErasureOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run. `gone_s`: time until Redis holds nothing; `confirmed_s`: until all owners are done.

    `samples`: covered rows in checkpoints before the erasures, `left_in_samples` after them; `left`: covered keys.
    """

    people: int
    events: int
    gone_s: ErasureTimes
    confirmed_s: ErasureTimes
    confirmations: int
    samples: int
    left: int
    left_in_samples: int
    emitted_afterwards: int
    learned_afterwards: int
    left_after_replay: int
    left_after_rebuild: int
    mismatches: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether erased data is gone permanently, each erasure was confirmed once, and no other slice has changed."""
        left = self.left + self.left_after_replay + self.left_after_rebuild
        left += self.left_in_samples + self.emitted_afterwards + self.learned_afterwards
        return (
            self.samples > 0
            and left + self.mismatches == 0
            and self.confirmations == self.people
            and self.gone_s.max <= GONE_MAX_S
        )


def summarize_seconds(seconds: Sequence[float]) -> ErasureTimes:
    if not seconds:
        return ErasureTimes(0.0, 0.0)
    _, median, largest = min_median_max(seconds, 2)
    return ErasureTimes(median, largest)
