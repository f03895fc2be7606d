"""Purchases of what was clicked: an order of the same user with that item, within a window after the click."""

from dataclasses import dataclass

from contract.events import Order
from contract.joining.output import Counts, Output
from contract.joining.parking import Parked
from contract.joining.served import Stage, labelled
from contract.joining.shelf import Shelf
from contract.rows import Example
from contract.settings import Feedback


@dataclass(slots=True)
class Clicked:
    """An item that was clicked, as an example with its click."""

    example: Example
    is_settled: bool = False  # that it was not bought so far has been said

    @property
    def clicked_ms(self) -> int:
        return self.example.known_ms["click"]

    @property
    def buys(self) -> tuple[str, str]:
        """Which orders concern it: those of this user with this item."""
        return self.example.user_id, self.example.item_id


class Purchases:
    """Waits for orders after clicks. An order may be read before the click, and is kept a grace for that."""

    def __init__(self, *, feedback: Feedback, output: Output, counts: Counts) -> None:
        self._wait_ms, self._window_ms = feedback.purchase_wait_s * 1000, feedback.purchase_window_s * 1000
        self._grace_ms = feedback.grace_s * 1000
        self._output, self._counts = output, counts
        self._clicked = Shelf[str, Clicked](limit=feedback.rows_max, remembered=0)
        self._waiting: dict[tuple[str, str], dict[str, None]] = {}  # example ids by user and item
        self._recent = Parked[str, Order](wait_ms=self._grace_ms, limit=feedback.parked_max)

    def click(self, example: Example, since_ms: int) -> None:
        """Wait for the purchase of an example whose click is known; its parts lie at `since_ms` and later."""
        clicked = Clicked(example)
        key = example.example_id
        due_ms = clicked.clicked_ms + self._wait_ms
        crowded = self._clicked.put(key, clicked, since_ms=since_ms, due_ms=due_ms)
        self._waiting.setdefault(clicked.buys, {})[key] = None
        if crowded:
            self._counts["crowded", "purchase"] += 1
            self._forget(*crowded)
        for order in self._recent.look(example.user_id):
            if any(line.item_id == example.item_id for line in order.lines):
                self._buy(key, order.ts_ms)

    def order(self, order: Order) -> None:
        if self._recent.park(order.user_id, order):
            self._counts["crowded", "purchase"] += 1
        for item_id in dict.fromkeys(line.item_id for line in order.lines):
            for key in tuple(self._waiting.get((order.user_id, item_id), ())):
                self._buy(key, order.ts_ms)

    def advance(self, watermark_ms: int) -> None:
        for key, clicked in self._clicked.due(watermark_ms):
            if clicked.is_settled:
                self._forget(key, self._clicked.remove(key))
            else:
                self._settle(clicked)
                self._clicked.wake(key, clicked.clicked_ms + max(self._wait_ms, self._window_ms) + self._grace_ms)
        for _ in self._recent.expired(watermark_ms):
            pass  # most orders are of items that no list of ours had shown

    def oldest_ms(self) -> list[int | None]:
        return [self._clicked.oldest_ms(), self._recent.oldest_ms()]

    def _buy(self, key: str, ts_ms: int) -> None:
        clicked = self._clicked.get(key)
        if clicked is None or not clicked.clicked_ms <= ts_ms <= clicked.clicked_ms + self._window_ms:
            return
        if ts_ms > clicked.clicked_ms + self._wait_ms:
            self._settle(clicked)  # said before the correction, whether or not a timer came by first
        self._output.examples.append(labelled(clicked.example, Stage.BOUGHT, {"purchase": (1.0, ts_ms)}))
        self._forget(key, self._clicked.remove(key))

    def _settle(self, clicked: Clicked) -> None:
        if not clicked.is_settled:
            clicked.is_settled = True
            known = {"purchase": (0.0, clicked.clicked_ms + self._wait_ms)}
            self._output.examples.append(labelled(clicked.example, Stage.NOT_BOUGHT, known))

    def _forget(self, key: str, clicked: Clicked) -> None:
        of = self._waiting[clicked.buys]
        del of[key]
        if not of:
            del self._waiting[clicked.buys]
