"""The simulated shop of the joiner's kill test: its records with their arrival times, and the expected examples."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from contract.events.model import Click, Event, Impression, Label, Line, Order
from contract.messages import ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.units import HOUR_MS, MINUTE_MS

USERS: Final = 2_000
PARTITIONS: Final = 4
ITEMS_PER_LIST: Final = 4  # of a list or search
ITEMS_SHOWN: Final = 3  # of a list
KINDS: Final = ("scored", "impressions", "clicks", "orders", "labels")
FEEDBACK_SETTINGS: Final = FeedbackSettings(
    impression_wait_s=2 * 3600,
    click_wait_s=30 * 60,
    purchase_wait_s=3600,
    purchase_window_s=10 * 3600,
    fraud_window_s=20 * 3600,
    grace_s=15 * 60,
)
CLICK_MS: Final = 30 * MINUTE_MS
PURCHASE_MS: Final = HOUR_MS
PURCHASE_WINDOW_MS: Final = 10 * HOUR_MS
WINDOW_MS: Final = 20 * HOUR_MS
GRACE_MS: Final = 15 * MINUTE_MS
TAIL_MS: Final = 60 * HOUR_MS  # after which every window has closed


@dataclass(frozen=True, slots=True)
class TimedRecord:
    """A record and its arrival at Kafka in simulated time."""

    arrival_ms: int
    kind: str
    partition: int
    ts_ms: int
    event_id: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class LabelFact:
    """A label that came from an event; `in_window`: before the negative label would have been emitted."""

    task: str
    value: float
    ts_ms: int
    event_id: str
    in_window: bool


@dataclass(slots=True)
class ExpectedExample:
    """The final labels of an example of a row (or one of its items), and the facts that its revisions should show."""

    row: ScoredRow
    item_index: int | None
    labels: dict[str, float] = field(default_factory=dict)
    known_ms: dict[str, int] = field(default_factory=dict)
    negative_from_ms: dict[str, int] = field(default_factory=dict)  # earliest time of a negative label by task
    facts: list[LabelFact] = field(default_factory=list)

    def expect(self, task: str, value: float, known_ms: int) -> None:
        self.labels[task], self.known_ms[task] = value, known_ms

    def add_fact(self, task: str, value: float, event: Event, *, in_window: bool = True) -> None:
        """Add a fact, which replaces the expected label of its task."""
        self.facts.append(LabelFact(task, value, event.ts_ms, event.event_id, in_window))
        self.expect(task, value, event.ts_ms)


def make_last_record(kind: str, event_id: str, ts_ms: int) -> ScoredRow | Event:
    """A record without labels that only advances the watermark."""
    match kind:
        case "scored":
            return ScoredRow(
                event_id=event_id,
                kind="click",
                user_id="last",
                ts_ms=ts_ms,
                topic="shop.clicks",
                partition=0,
                offset=0,
                model_version="m1",
                features="f1",
                groups={},
            )
        case "impressions":
            return Impression(event_id=event_id, ts_ms=ts_ms, user_id="last", items=())
        case "clicks":
            return Click(event_id=event_id, ts_ms=ts_ms, user_id="last", item_id="last")
        case "orders":
            line = Line(item_id="last", quantity=1, unit_price=1.0)
            return Order(
                event_id=event_id,
                ts_ms=ts_ms,
                user_id="last",
                lines=(line,),
                amount=1.0,
                currency="EUR",
                payment_method="card",
            )
        case _:
            return Label(
                event_id=event_id, ts_ms=ts_ms, user_id="last", judged_event_id=event_id, task="fraud", value=0.0
            )


def split_portions(records: list[TimedRecord], count: int) -> Iterator[list[TimedRecord]]:
    """The records in order, in `count` portions of about the same length."""
    size = -(-len(records) // count)
    for begin in range(0, len(records), size):
        yield records[begin : begin + size]
