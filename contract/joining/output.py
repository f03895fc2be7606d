"""What the joins share: the output that they append to, and the outcomes that they count."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

from contract.events.model import Judgement
from contract.messages import Example

JoinOutcome: TypeAlias = Literal[
    "parked", "orphan", "late", "duplicate", "foreign", "outside", "crowded", "unfit", "sampled"
]
JOIN_OUTCOMES: Final[dict[JoinOutcome, str]] = {
    "parked": "arrived before its row and was buffered",
    "orphan": "its row never arrived",
    "late": "arrived after its row was removed, or is dated after the window",
    "duplicate": "was received before",
    "foreign": "names a row of another user",
    "outside": "names an item that is not in its list, or that was never shown",
    "crowded": "evicted because the limit of pending entries was reached",
    "unfit": "a scored row whose blocks do not have one row for each item",
    "sampled": "a negative that sampling left out; see `contract.joining.sampling`",
}


class Origin(NamedTuple):
    """The position of an event in the log."""

    topic: str
    partition: int
    offset: int


class OrphanLabel(NamedTuple):
    """A label whose row never arrived at this joiner: its task, the row that it names, its position in the log."""

    task: str
    row_id: str
    origin: Origin | None


class ForeignLabel(NamedTuple):
    """A label that names another user than the row that it judges, and is joined to nothing: its own id, its task."""

    event_id: str
    task: str
    row_id: str


@dataclass(slots=True)
class JoinOutput:
    """Output in the order of emission: revisions of one example are ascending."""

    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    orphans: list[OrphanLabel] = field(default_factory=list)
    foreign: list[ForeignLabel] = field(default_factory=list)

    def drain(self) -> "JoinOutput":
        """The output so far; leaves this object empty."""
        drained = JoinOutput(self.examples, self.judgements, self.orphans, self.foreign)
        self.examples, self.judgements, self.orphans, self.foreign = [], [], [], []
        return drained


OutcomeCounts: TypeAlias = Counter[tuple[JoinOutcome, str]]  # by outcome and task
