"""Joins recommendation lists with impressions and clicks.

A list's row, its impressions and its clicks arrive in any order. Each item that was shown becomes an example; items
that were recommended and never shown do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec.structs import replace

from contract.events.model import Click, Impression, Order
from contract.graphs import RECOMMEND
from contract.joining.early_events import EarlyEvents
from contract.joining.examples import Stage, add_labels, example_for_item, is_well_formed
from contract.joining.output import JoinOutput, OutcomeCounts
from contract.joining.pending import PendingStore
from contract.joining.purchases import PurchaseJoin
from contract.joining.row_store import RowStore
from contract.joining.sampling import NegativeSampler
from contract.messages import Example, ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task

ListEvent: TypeAlias = Impression | Click


@dataclass(frozen=True, slots=True)
class EarlyListEvent:
    """An impression or a click that waits for its list, in a form that tells which when it is stored."""

    impression: Impression | None = None
    click: Click | None = None

    @property
    def event(self) -> ListEvent:
        event = self.impression or self.click
        assert event is not None
        return event

    @property
    def ts_ms(self) -> int:
        return self.event.ts_ms


@dataclass(slots=True)
class ShownItem:
    """An item that was shown, and the last stage that was emitted for it."""

    ts_ms: int
    stage: Stage | None = None


@dataclass(slots=True)
class PendingList:
    """A list as served, its items that were shown, and clicks that arrived before their impression."""

    row: ScoredRow
    shown: dict[str, ShownItem] = field(default_factory=dict)
    early_clicks: dict[str, Click] = field(default_factory=dict)


class RecommendationJoin:
    """Joins rows of lists with impressions and clicks; clicked items are passed to `PurchaseJoin`."""

    def __init__(
        self,
        *,
        feedback: FeedbackSettings,
        tasks: Sequence[Task],
        output: JoinOutput,
        counts: OutcomeCounts,
        rows: RowStore | None = None,
    ) -> None:
        self._impression_wait_ms = feedback.impression_wait_s * 1000
        self._click_wait_ms = feedback.click_wait_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._lists = PendingStore(
            "lists", PendingList, limit=feedback.rows_max, removed_max=feedback.parked_max, rows=rows
        )
        self._early = EarlyEvents(
            "list_events", EarlyListEvent, wait_ms=self._impression_wait_ms, limit=feedback.parked_max, rows=rows
        )
        self._negative_sampler = NegativeSampler(task="click", tasks=tasks, counts=counts)
        self._purchases = PurchaseJoin(feedback=feedback, output=output, counts=counts, rows=rows)
        self.stores: list[PendingStore[Any]] = [self._lists, self._early.pending, *self._purchases.stores]

    def add_row(self, row: ScoredRow) -> None:
        if not is_well_formed(row):
            self._counts["unfit", "click"] += 1
        elif self._lists.get(row.event_id) or self._lists.was_removed(row.event_id):
            self._counts["duplicate", "row"] += 1
        else:
            due_ms = row.ts_ms + self._impression_wait_ms
            pending = PendingList(row)
            if self._lists.add(row.event_id, pending, since_ms=row.ts_ms, due_ms=due_ms, owner=row.user_id):
                self._counts["crowded", "click"] += 1
            for event in self._early.pop(row.event_id):
                self.add_event(event.event)

    def add_event(self, event: ListEvent) -> None:
        """Add an impression or a click; those that name no list are ignored."""
        key = event.recommendation_id
        if key is None:
            return
        pending = self._lists.get(key)
        if pending is None:
            self._buffer(key, event)
        elif pending.row.user_id != event.user_id:
            self._counts["foreign", "click"] += 1
        elif isinstance(event, Impression):
            self._add_impression(key, pending, event)
        else:
            self._add_click(key, pending, event)

    def add_order(self, order: Order) -> None:
        self._purchases.add_order(order)

    def advance(self, watermark_ms: int) -> None:
        for key, pending in self._lists.due(watermark_ms):
            for item_id, shown in pending.shown.items():
                if shown.ts_ms + self._click_wait_ms < watermark_ms:
                    self._emit_negative(pending, item_id)
            due_ms = self._next_due_ms(pending)
            if due_ms < watermark_ms:
                self._lists.remove(key)
                for _ in pending.early_clicks:
                    self._counts["outside", "click"] += 1
            else:
                self._lists.update(key, due_ms=due_ms)
        for _ in self._early.pop_expired(watermark_ms):
            self._counts["orphan", "click"] += 1
        self._purchases.advance(watermark_ms)

    def _buffer(self, key: str, event: ListEvent) -> None:
        if self._lists.was_removed(key):
            self._counts["late", "click"] += 1
            return
        self._counts["parked", "click"] += 1
        early = EarlyListEvent(impression=event) if isinstance(event, Impression) else EarlyListEvent(click=event)
        if self._early.add(key, early, owner=event.user_id):
            self._counts["orphan", "click"] += 1

    def _add_impression(self, key: str, pending: PendingList, impression: Impression) -> None:
        self._lists.update(key, part_ms=impression.ts_ms)
        for item_id in impression.items:
            if item_id not in pending.row.items:
                self._counts["outside", "click"] += 1
            elif item_id not in pending.shown:
                pending.shown[item_id] = ShownItem(impression.ts_ms)
                if click := pending.early_clicks.pop(item_id, None):
                    self._add_click(key, pending, click)
        self._lists.update(key, due_ms=self._next_due_ms(pending))

    def _add_click(self, key: str, pending: PendingList, click: Click) -> None:
        shown = pending.shown.get(click.item_id)
        if click.item_id not in pending.row.items:
            self._counts["outside", "click"] += 1
        elif (shown and shown.stage == Stage.CLICKED) or click.item_id in pending.early_clicks:
            self._counts["duplicate", "click"] += 1
        elif shown is None:
            self._lists.update(key, part_ms=click.ts_ms)
            pending.early_clicks[click.item_id] = click
        elif click.ts_ms > shown.ts_ms + self._click_wait_ms + self._grace_ms:
            self._counts["late", "click"] += 1
        else:
            self._emit_click(key, pending, shown, click)

    def _emit_click(self, key: str, pending: PendingList, shown: ShownItem, click: Click) -> None:
        if click.ts_ms > shown.ts_ms + self._click_wait_ms:
            self._emit_negative(pending, click.item_id)  # before the correction, even if the timer has not fired yet
        shown.stage = Stage.CLICKED
        example = add_labels(self._example(pending, click.item_id), Stage.CLICKED, {"click": (1.0, click.ts_ms)})
        self._output.examples.append(example)
        self._purchases.add_click(example, min(pending.row.ts_ms, shown.ts_ms, click.ts_ms))
        self._lists.update(key, due_ms=self._next_due_ms(pending))

    def _emit_negative(self, pending: PendingList, item_id: str) -> None:
        """Emit once that a shown item was neither clicked nor bought."""
        shown = pending.shown[item_id]
        if shown.stage is None:
            shown.stage = Stage.NOT_CLICKED
            known_ms = shown.ts_ms + self._click_wait_ms
            labels = {"click": (0.0, known_ms), "purchase": (0.0, known_ms)}
            negative = add_labels(self._example(pending, item_id), Stage.NOT_CLICKED, labels)
            self._output.examples += self._negative_sampler.sample(negative)

    def _example(self, pending: PendingList, item_id: str) -> Example:
        example = example_for_item(pending.row, item_id, pending.shown[item_id].ts_ms, RECOMMEND.event_groups)
        return replace(example, place=pending.row.items.index(item_id))

    def _next_due_ms(self, pending: PendingList) -> int:
        """When a list is due next: at the end of the next item's click window, or else when the list is removed."""
        waiting = [shown.ts_ms for shown in pending.shown.values() if shown.stage is None]
        if waiting:
            return min(waiting) + self._click_wait_ms
        last_ms = max((shown.ts_ms for shown in pending.shown.values()), default=pending.row.ts_ms)
        return max(pending.row.ts_ms + self._impression_wait_ms, last_ms + self._click_wait_ms + self._grace_ms)
