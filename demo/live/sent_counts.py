"""Counts of the records sent in the live phase, to compare the outputs with."""

from collections import Counter
from dataclasses import dataclass, field

from contract.events.model import Order
from demo.live.home_pages import HomePageCounts
from demo.simulator.records import SourceRecord


@dataclass(slots=True)
class SentCounts:
    """Counts of source records. `malformed`: by the reason of the dead letter that each must become."""

    records: int = 0
    valid: Counter[str] = field(default_factory=Counter)
    malformed: Counter[str] = field(default_factory=Counter)
    order_ids: set[str] = field(default_factory=set)
    home_pages: HomePageCounts = field(default_factory=HomePageCounts)

    def record(self, record: SourceRecord) -> None:
        self.records += 1
        if record.reason:
            self.malformed[record.reason] += 1
        elif not isinstance(record.event, bytes):
            self.valid[record.kind] += 1
            self.home_pages.record(record.event)
            if isinstance(record.event, Order):
                self.order_ids.add(record.event.event_id)
