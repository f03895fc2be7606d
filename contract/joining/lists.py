"""Recommendation lists: what was shown of them, and what of that was clicked.

A list's row, its impressions and its clicks come in any order; each item that was shown is an example. Items that were
recommended and never seen are none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contract.events import Click, Impression, Order
from contract.joining.output import Counts, Output
from contract.joining.parking import Parked
from contract.joining.purchases import Purchases
from contract.joining.sampling import Negatives
from contract.joining.served import Stage, fits, labelled, pair
from contract.joining.shelf import Shelf
from contract.rows import Example, Scored
from contract.settings import Feedback
from contract.tasks import Task

Seen: TypeAlias = Impression | Click
GROUPS: Final = ("user", "context")


@dataclass(slots=True)
class Shown:
    """An item that was shown, and what has been said of it."""

    ts_ms: int
    stage: Stage | None = None


@dataclass(slots=True)
class List:
    """A list as served, the items of it that were shown, and clicks that came before their impression."""

    row: Scored
    shown: dict[str, Shown] = field(default_factory=dict)
    early: dict[str, Click] = field(default_factory=dict)


class Lists:
    """Joins rows of lists with impressions and clicks; clicked items go on to `Purchases`."""

    def __init__(self, *, feedback: Feedback, tasks: Sequence[Task], output: Output, counts: Counts) -> None:
        self._impression_ms, self._click_ms = feedback.impression_wait_s * 1000, feedback.click_wait_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._lists = Shelf[str, List](limit=feedback.rows_max, remembered=feedback.parked_max)
        self._parked = Parked[str, Seen](wait_ms=self._impression_ms, limit=feedback.parked_max)
        self._negatives = Negatives(task="click", tasks=tasks, counts=counts)
        self._purchases = Purchases(feedback=feedback, output=output, counts=counts)

    def scored(self, row: Scored) -> None:
        if not fits(row):
            self._counts["unfit", "click"] += 1
        elif self._lists.get(row.event_id) or self._lists.left(row.event_id):
            self._counts["duplicate", "row"] += 1
        else:
            due_ms = row.ts_ms + self._impression_ms
            if self._lists.put(row.event_id, List(row), since_ms=row.ts_ms, due_ms=due_ms):
                self._counts["crowded", "click"] += 1
            for event in self._parked.claim(row.event_id):
                self.seen(event)

    def seen(self, event: Seen) -> None:
        """Take an impression or a click; one that names no list concerns none."""
        key = event.recommendation_id
        if key is None:
            return
        found = self._lists.get(key)
        if found is None:
            self._wait(key, event)
        elif found.row.user_id != event.user_id:
            self._counts["foreign", "click"] += 1
        elif isinstance(event, Impression):
            self._show(key, found, event)
        else:
            self._click(key, found, event)

    def order(self, order: Order) -> None:
        self._purchases.order(order)

    def advance(self, watermark_ms: int) -> None:
        for key, found in self._lists.due(watermark_ms):
            for item_id, shown in found.shown.items():
                if shown.ts_ms + self._click_ms < watermark_ms:
                    self._settle(found, item_id)
            due_ms = self._next_ms(found)
            if due_ms < watermark_ms:
                self._lists.remove(key)
                for _ in found.early:
                    self._counts["outside", "click"] += 1
            else:
                self._lists.wake(key, due_ms)
        for _ in self._parked.expired(watermark_ms):
            self._counts["orphan", "click"] += 1
        self._purchases.advance(watermark_ms)

    def oldest_ms(self) -> list[int | None]:
        return [self._lists.oldest_ms(), self._parked.oldest_ms(), *self._purchases.oldest_ms()]

    def _wait(self, key: str, event: Seen) -> None:
        if self._lists.left(key):
            self._counts["late", "click"] += 1
            return
        self._counts["parked", "click"] += 1
        if self._parked.park(key, event):
            self._counts["orphan", "click"] += 1

    def _show(self, key: str, found: List, impression: Impression) -> None:
        self._lists.include(key, impression.ts_ms)
        for item_id in impression.items:
            if item_id not in found.row.items:
                self._counts["outside", "click"] += 1
            elif item_id not in found.shown:
                found.shown[item_id] = Shown(impression.ts_ms)
                if click := found.early.pop(item_id, None):
                    self._click(key, found, click)
        self._lists.wake(key, self._next_ms(found))

    def _click(self, key: str, found: List, click: Click) -> None:
        shown = found.shown.get(click.item_id)
        if click.item_id not in found.row.items:
            self._counts["outside", "click"] += 1
        elif (shown and shown.stage == Stage.CLICKED) or click.item_id in found.early:
            self._counts["duplicate", "click"] += 1
        elif shown is None:
            self._lists.include(key, click.ts_ms)
            found.early[click.item_id] = click
        elif click.ts_ms > shown.ts_ms + self._click_ms + self._grace_ms:
            self._counts["late", "click"] += 1
        else:
            self._join(key, found, shown, click)

    def _join(self, key: str, found: List, shown: Shown, click: Click) -> None:
        if click.ts_ms > shown.ts_ms + self._click_ms:
            self._settle(found, click.item_id)  # said before the correction, whether or not a timer came by first
        shown.stage = Stage.CLICKED
        example = labelled(self._pair(found, click.item_id), Stage.CLICKED, {"click": (1.0, click.ts_ms)})
        self._output.examples.append(example)
        self._purchases.click(example, min(found.row.ts_ms, shown.ts_ms, click.ts_ms))
        self._lists.wake(key, self._next_ms(found))

    def _settle(self, found: List, item_id: str) -> None:
        """Say that a shown item was neither clicked nor bought, once."""
        shown = found.shown[item_id]
        if shown.stage is None:
            shown.stage = Stage.NOT_CLICKED
            known_ms = shown.ts_ms + self._click_ms
            labels = {"click": (0.0, known_ms), "purchase": (0.0, known_ms)}
            negative = labelled(self._pair(found, item_id), Stage.NOT_CLICKED, labels)
            self._output.examples += self._negatives.kept(negative)

    def _pair(self, found: List, item_id: str) -> Example:
        return pair(found.row, item_id, found.shown[item_id].ts_ms, GROUPS)

    def _next_ms(self, found: List) -> int:
        """When to look at a list again: when the next item's click has been waited for, at last when it leaves."""
        waiting = [shown.ts_ms for shown in found.shown.values() if shown.stage is None]
        if waiting:
            return min(waiting) + self._click_ms
        last_ms = max((shown.ts_ms for shown in found.shown.values()), default=found.row.ts_ms)
        return max(found.row.ts_ms + self._impression_ms, last_ms + self._click_ms + self._grace_ms)
