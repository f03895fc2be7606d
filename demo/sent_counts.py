"""The tally: what the shop has sent in its live part, so that what comes out can be compared with it."""

from collections import Counter
from dataclasses import dataclass, field

from contract.events import Click, Event, Impression, Order
from demo.simulator.records import SourceRecord


@dataclass(slots=True)
class HomePageClicks:
    """Home pages of one origin: items that were shown on them, and how many were clicked."""

    impressions: int = 0
    clicks: int = 0

    @property
    def click_rate(self) -> float:
        return self.clicks / self.impressions if self.impressions else 0.0


@dataclass(slots=True)
class SentCounts:
    """Counts of happenings. `malformed`: by the reason of the dead letter that each has to become."""

    records: int = 0
    valid: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    order_ids: set[str] = field(default_factory=set)
    our_lists: HomePageClicks = field(default_factory=HomePageClicks)
    shop_lists: HomePageClicks = field(default_factory=HomePageClicks)

    def record(self, record: SourceRecord) -> None:
        self.records += 1
        if record.reason:
            self.malformed[record.reason] += 1
        elif not isinstance(record.event, bytes):
            self.valid[record.kind] += 1
            self._record_event(record.event)

    def _record_event(self, event: Event) -> None:
        match event:
            case Order():
                self.order_ids.add(event.event_id)
            case Impression(surface="home"):
                self._home_page_clicks(event.recommendation_id).impressions += len(event.items)
            case Click(surface="home"):
                self._home_page_clicks(event.recommendation_id).clicks += 1

    def _home_page_clicks(self, recommendation_id: str | None) -> HomePageClicks:
        return self.our_lists if recommendation_id else self.shop_lists
