"""What waits for labels, and from where each partition has to be read again to have it all again. Pure.

What waits is in memory only. So a partition's position is that of its earliest record that something open may need.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from contract.events import Event
from contract.joining.joiner import Joiner
from contract.joining.output import Counts, Origin, Output
from contract.rows import Scored
from contract.settings import Feedback
from contract.tasks import Task
from worker.bookmarks import Bookmarks
from worker.intake import Place
from worker.notes import NONE, Note
from worker.watermarks import Watermarks


class Waiting:
    """A joiner over partitions that are read at different speeds."""

    def __init__(self, *, feedback: Feedback, tasks: Sequence[Task]) -> None:
        self._joiner = Joiner(feedback=feedback, tasks=tasks)
        self._watermarks = Watermarks[Place]()
        self._bookmarks: dict[Place, Bookmarks] = {}
        self._earlier: dict[Place, Note] = {}
        # Records further ahead than this would only be parked until the slower topics have caught up.
        self._lead_ms = feedback.grace_s * 1000
        self._judged_ms = (feedback.fraud_window_s + feedback.grace_s) * 1000  # how long a row that is judged waits

    @property
    def counts(self) -> Counts:
        return self._joiner.counts

    @property
    def now_ms(self) -> int | None:
        """The streams' own time."""
        return self._watermarks.now_ms()

    @property
    def oldest_ms(self) -> int | None:
        """The event time since which something waits."""
        return self._joiner.oldest_open_ms()

    def follow(self, places: Iterable[Place]) -> None:
        """Fire no timer before these partitions have told what happened until then."""
        self._watermarks.follow(places)

    def give(self, place: Place, offset: int, thing: Scored | Event | None) -> None:
        """Take the next record of a partition; None for one that could not be read."""
        marks = self._bookmarks.setdefault(place, Bookmarks())
        if thing is None:
            marks.skip(offset)
            return
        marks.note(offset, thing.ts_ms)
        self._watermarks.see(place, thing.ts_ms)
        if isinstance(thing, Scored):
            # A row that was done with may be read again without all that had come for it.
            if not self._earlier.get(place, NONE).is_closed(offset, thing):
                self._joiner.scored(thing)
        else:
            self._joiner.event(thing, Origin(*place, offset))

    def advance(self, quiet: Iterable[Place]) -> Output:
        """What is ready, now that exactly the partitions in `quiet` have nothing to tell."""
        self._watermarks.end(quiet)
        now_ms = self.now_ms
        if now_ms is not None:
            self._joiner.advance(now_ms)
        return self._joiner.take()

    def positions(self) -> dict[Place, int]:
        """From where each partition that has been read has to be read again; never goes back."""
        oldest_ms = self.oldest_ms
        return {place: marks.position(oldest_ms) for place, marks in self._bookmarks.items()}

    def resume(self, notes: Mapping[Place, Note]) -> None:
        """Leave out rows that an earlier life was done with."""
        self._earlier = dict(notes)

    def notes(self, orphans: Mapping[str, int]) -> dict[Place, Note]:
        """What the next life should know of each partition that has been read."""
        oldest_ms, judged_ms = self.oldest_ms, max(0, (self.now_ms or 0) - self._judged_ms)
        for place, marks in self._bookmarks.items():
            since_ms = marks.highest_ms + 1 if oldest_ms is None else oldest_ms
            now, earlier = Note({}, marks.position_read, since_ms, judged_ms), self._earlier.get(place, NONE)
            self._earlier[place] = replace(now if now.after(earlier) else earlier, orphans=dict(orphans))
        return {place: self._earlier[place] for place in self._bookmarks}

    def read(self) -> dict[Place, int]:
        """How far each partition has been read."""
        return {place: marks.position_read for place, marks in self._bookmarks.items()}

    def ahead(self) -> set[Place]:
        """Partitions that should wait until the slower ones have caught up."""
        return self._watermarks.ahead(self._lead_ms)
