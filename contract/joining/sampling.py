"""Negatives are many and much alike, so a task may keep a share of them; the graph puts right what that does.

Which ones are kept is the hash of their example's id: every life of a joiner, and every replay, keeps the same ones.
"""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from contract.hashing import digest
from contract.joining.output import Counts
from contract.rows import Example
from contract.tasks import Task

WHOLE: Final = 2**64


class Negatives:
    """The negatives of one task: kept where XXH3-64 of the example's id lies below `negative_rate` of all hashes."""

    def __init__(self, *, task: str, tasks: Sequence[Task], counts: Counts) -> None:
        self._task, self._counts = task, counts
        self._rate = next((one.negative_rate for one in tasks if one.name == task), 1.0)

    def kept(self, example: Example) -> list[Example]:
        """The example with its chance of being kept, or nothing where it is left out, which is counted."""
        if digest(example.example_id) < self._rate * WHOLE:
            return [replace(example, negative_rate=self._rate)]
        self._counts["sampled", self._task] += 1
        return []
