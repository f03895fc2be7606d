"""The tally: what the shop has sent in its live part, so that what comes out can be compared with it."""

from collections import Counter
from dataclasses import dataclass, field

from contract.events import Click, Event, Impression, Order
from demo.happenings import Happening


@dataclass(slots=True)
class Pages:
    """Home pages of one origin: items that were shown on them, and how many were clicked."""

    shown: int = 0
    clicked: int = 0

    @property
    def rate(self) -> float:
        return self.clicked / self.shown if self.shown else 0.0


@dataclass(slots=True)
class Tally:
    """Counts of happenings. `malformed`: by the reason of the dead letter that each has to become."""

    records: int = 0
    valid: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    orders: set[str] = field(default_factory=set)
    ours: Pages = field(default_factory=Pages)
    theirs: Pages = field(default_factory=Pages)

    def note(self, happening: Happening) -> None:
        self.records += 1
        if happening.reason:
            self.malformed[happening.reason] += 1
        elif not isinstance(happening.event, bytes):
            self.valid[happening.kind] += 1
            self._note_event(happening.event)

    def _note_event(self, event: Event) -> None:
        match event:
            case Order():
                self.orders.add(event.event_id)
            case Impression(surface="home"):
                self._pages(event.recommendation_id).shown += len(event.items)
            case Click(surface="home"):
                self._pages(event.recommendation_id).clicked += 1

    def _pages(self, recommendation_id: str | None) -> Pages:
        return self.ours if recommendation_id else self.theirs
