"""Joins clicked items with purchases: orders of the same user with that item, within a window after the click."""

from dataclasses import dataclass
from typing import Any

from contract.events.model import Order
from contract.joining.early_events import EarlyEvents
from contract.joining.examples import Stage, add_labels
from contract.joining.output import JoinOutput, OutcomeCounts
from contract.joining.pending import PendingStore
from contract.joining.row_store import RowStore
from contract.messages import Example
from contract.redis_keys import escape_id
from contract.settings.worker import FeedbackSettings


@dataclass(slots=True)
class ClickedItem:
    """A clicked item, as an example with its click label."""

    example: Example
    is_settled: bool = False  # the label "not bought so far" was emitted

    @property
    def clicked_ms(self) -> int:
        return self.example.known_ms["click"]


def make_order_key(user_id: str, item_id: str) -> str:
    """The user and the item, which a clicked item and the orders that may buy it share."""
    return f"{escape_id(user_id)}\0{item_id}"


class PurchaseJoin:
    """Waits for orders after clicks. Orders are kept for the grace period, since the click may be read after them."""

    def __init__(
        self, *, feedback: FeedbackSettings, output: JoinOutput, counts: OutcomeCounts, rows: RowStore | None = None
    ) -> None:
        self._wait_ms = feedback.purchase_wait_s * 1000
        self._window_ms = feedback.purchase_window_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._output, self._counts = output, counts
        # Keys are ids of examples.
        self._clicked = PendingStore("clicked", ClickedItem, limit=feedback.rows_max, removed_max=0, rows=rows)
        self._recent_orders = EarlyEvents("orders", Order, wait_ms=self._grace_ms, limit=feedback.parked_max, rows=rows)
        self.stores: list[PendingStore[Any]] = [self._clicked, self._recent_orders.pending]

    def add_click(self, example: Example, since_ms: int) -> None:
        """Wait for the purchase of a clicked example; the events it was joined from are at `since_ms` or later."""
        clicked = ClickedItem(example)
        key = example.example_id
        due_ms = clicked.clicked_ms + self._wait_ms
        user_id, group = example.user_id, make_order_key(example.user_id, example.item_id)
        if self._clicked.add(key, clicked, since_ms=since_ms, due_ms=due_ms, owner=user_id, group=group):
            self._counts["crowded", "purchase"] += 1
        for order in self._recent_orders.peek(example.user_id):
            if any(line.item_id == example.item_id for line in order.lines):
                self._apply_order(key, order.ts_ms)

    def add_order(self, order: Order) -> None:
        if not order.user_id:  # a guest's: no list was shown to this person under that id
            return
        if self._recent_orders.add(order.user_id, order, owner=order.user_id):
            self._counts["crowded", "purchase"] += 1
        for item_id in dict.fromkeys(line.item_id for line in order.lines):
            for key in self._clicked.in_group(make_order_key(order.user_id, item_id)):
                self._apply_order(key, order.ts_ms)

    def advance(self, watermark_ms: int) -> None:
        for key, clicked in self._clicked.due(watermark_ms):
            if clicked.is_settled:
                self._clicked.remove(key)
            else:
                self._emit_negative(clicked)
                last_ms = clicked.clicked_ms + max(self._wait_ms, self._window_ms) + self._grace_ms
                self._clicked.update(key, due_ms=last_ms)
        for _ in self._recent_orders.pop_expired(watermark_ms):
            pass  # most orders are for items that no recommendation list showed

    def _apply_order(self, key: str, ts_ms: int) -> None:
        clicked = self._clicked.get(key)
        if clicked is None or not clicked.clicked_ms <= ts_ms <= clicked.clicked_ms + self._window_ms:
            return
        if ts_ms > clicked.clicked_ms + self._wait_ms:
            self._emit_negative(clicked)  # emitted before the correction, even if the timer has not fired yet
        self._output.examples.append(add_labels(clicked.example, Stage.BOUGHT, {"purchase": (1.0, ts_ms)}))
        self._clicked.remove(key)

    def _emit_negative(self, clicked: ClickedItem) -> None:
        if not clicked.is_settled:
            clicked.is_settled = True
            labels = {"purchase": (0.0, clicked.clicked_ms + self._wait_ms)}
            self._output.examples.append(add_labels(clicked.example, Stage.NOT_BOUGHT, labels))
