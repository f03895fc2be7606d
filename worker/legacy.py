"""What earlier lives of the joiner have left to this one, and what this one leaves to the next. Pure."""

from collections import Counter
from collections.abc import Mapping

from contract.joining.output import Output
from contract.settings import Feedback
from worker.intake import Held, Place
from worker.notes import Note, read_all, write
from worker.recall import start_of
from worker.said import Said
from worker.tally import Tally
from worker.waiting import Waiting


class Legacy:
    """What was said already, rows that were done with, and labels without a row that were counted."""

    def __init__(self, *, feedback: Feedback, held: Mapping[Place, Held], said: Said) -> None:
        """`held`: where this life begins to read, and the notes that were committed there."""
        self.notes: Mapping[Place, Note] = read_all(held)
        self._tally = Tally(final=[note.orphans for note in self.notes.values()], limit=feedback.parked_max)
        self._said, self._nothing = said, Said(limit=feedback.said_max)
        self._ends = {place: at.high for place, at in held.items() if at.high > start_of(at)}

    @property
    def forgotten(self) -> int:
        """How much was said that may be said twice."""
        return self._said.forgotten

    def orphans(self) -> Counter[str]:
        """Labels without a row by task, each counted once over all lives."""
        return self._tally.total()

    def fresh(self, output: Output) -> tuple[Output, int]:
        """What of this was not said yet, and how much was; labels without a row are counted."""
        fresh = self._said.fresh(output)
        self._tally.add(fresh.orphans)
        withheld = len(output.examples) + len(output.judgements) - len(fresh.examples) - len(fresh.judgements)
        return fresh, withheld

    def leave(self, waiting: Waiting, positions: Mapping[Place, int]) -> dict[Place, str]:
        """The notes to commit with these positions."""
        return {place: write(note) for place, note in waiting.notes(self._tally.final(positions)).items()}

    def forget(self, positions: Mapping[Place, int]) -> None:
        """Once nothing is open of what an earlier life can have read, nothing that it said can be said again."""
        if len(self._said) and all(positions.get(place, 0) >= end for place, end in self._ends.items()):
            self._said = self._nothing
