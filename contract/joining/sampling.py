"""Negative sampling: a task may keep a share of its many negatives; the exported graph corrects its probabilities.

The hash of the example's id decides, so that a joiner keeps the same negatives after every restart and replay.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from contract.hashing import HASH_RANGE, hash_text
from contract.joining.output import OutcomeCounts
from contract.messages import Example
from contract.tasks import Task


class NegativeSampler:
    """Samples the negatives of one task: those whose XXH3-64 is below `negative_rate` of the range of hashes."""

    def __init__(self, *, task: str, tasks: Sequence[Task], counts: OutcomeCounts) -> None:
        self._task, self._counts = task, counts
        self._rate = next((declared.negative_rate for declared in tasks if declared.name == task), 1.0)

    def sample(self, example: Example) -> list[Example]:
        """The example with the rate at which it was sampled, or nothing if it is left out, which is counted."""
        if hash_text(example.example_id) < self._rate * HASH_RANGE:
            return [replace(example, negative_rate=self._rate)]
        self._counts["sampled", self._task] += 1
        return []
