"""What the parts of the joiner share: where examples and judgements go, and what is counted."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from contract.events import Judgement
from contract.messages import Example

JoinOutcome: TypeAlias = Literal[
    "parked", "orphan", "late", "duplicate", "foreign", "outside", "crowded", "unfit", "sampled"
]
JOIN_OUTCOMES: Final[dict[JoinOutcome, str]] = {
    "parked": "came before its row and was kept for it",
    "orphan": "waited for a row that never came",
    "late": "came after its row had left, or was dated after the window",
    "duplicate": "had been counted already",
    "foreign": "names a row of another user",
    "outside": "names an item that its list does not have, or that was never shown",
    "crowded": "had to leave because more waits than may wait",
    "unfit": "a scored row whose blocks do not have one row for each item",
    "sampled": "a negative that was left out at random; see `contract.joining.sampling`",
}


class Origin(NamedTuple):
    """Where an event was read."""

    topic: str
    partition: int
    offset: int


class OrphanLabel(NamedTuple):
    """A label whose row never came, as far as this joiner can tell: task, the row that it names, where it was read."""

    task: str
    row_id: str
    origin: Origin | None


@dataclass(slots=True)
class JoinOutput:
    """What is ready, in the order in which it became so: revisions of one example stand in rising order."""

    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    orphans: list[OrphanLabel] = field(default_factory=list)

    def drain(self) -> "JoinOutput":
        """Everything that is ready; leaves this one empty."""
        drained = JoinOutput(self.examples, self.judgements, self.orphans)
        self.examples, self.judgements, self.orphans = [], [], []
        return drained


OutcomeCounts: TypeAlias = Counter[tuple[JoinOutcome, str]]  # (what became of it, task)
