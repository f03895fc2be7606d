"""Negatives are many and much alike, so a task may keep a share of them; the graph puts right what that does.

Which ones are kept is the hash of their example's id: every life of a joiner, and every replay, keeps the same ones.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from contract.hashing import hash_text
from contract.joining.output import OutcomeCounts
from contract.messages import Example
from contract.tasks import Task

HASH_RANGE: Final = 2**64


class NegativeSampler:
    """The negatives of one task: kept where XXH3-64 of the example's id lies below `negative_rate` of all hashes."""

    def __init__(self, *, task: str, tasks: Sequence[Task], counts: OutcomeCounts) -> None:
        self._task, self._counts = task, counts
        self._rate = next((declared.negative_rate for declared in tasks if declared.name == task), 1.0)

    def sample(self, example: Example) -> list[Example]:
        """The example with its chance of being kept, or nothing where it is left out, which is counted."""
        if hash_text(example.example_id) < self._rate * HASH_RANGE:
            return [replace(example, negative_rate=self._rate)]
        self._counts["sampled", self._task] += 1
        return []
