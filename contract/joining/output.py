"""What the parts of the joiner share: where examples and judgements go, and what is counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from contract.events import Judgement
from contract.rows import Example

Fate: TypeAlias = Literal["parked", "orphan", "late", "duplicate", "foreign", "crowded", "unfit"]
FATES: Final[dict[Fate, str]] = {
    "parked": "came before its row and was kept for it",
    "orphan": "waited for a row that never came",
    "late": "came after its row had left, or was dated after the window",
    "duplicate": "had been counted already",
    "foreign": "names a row of another user",
    "crowded": "had to leave because more waits than may wait",
    "unfit": "a scored row whose blocks do not have one row for each item",
}


@dataclass(slots=True)
class Output:
    """What is ready, in the order in which it became so: revisions of one example stand in rising order."""

    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)

    def take(self) -> "Output":
        """Everything that is ready; leaves this one empty."""
        taken = Output(self.examples, self.judgements)
        self.examples, self.judgements = [], []
        return taken


Counts: TypeAlias = Counter[tuple[Fate, str]]  # (what became of it, task)
