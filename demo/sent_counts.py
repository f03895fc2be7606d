"""Counts of the records sent in the live phase, to compare the outputs with."""

from collections import Counter
from dataclasses import dataclass, field

from contract.events.model import Click, Event, Impression, Order
from demo.simulator.records import SourceRecord


@dataclass(slots=True)
class HomePageClicks:
    """Items shown on home pages of one origin, and clicks on them."""

    impressions: int = 0
    clicks: int = 0

    @property
    def click_rate(self) -> float:
        return self.clicks / self.impressions if self.impressions else 0.0


@dataclass(slots=True)
class SentCounts:
    """Counts of source records. `malformed`: by the reason of the dead letter that each must become."""

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
