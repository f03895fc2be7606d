"""Cancellations: which earlier order a cancelled line is about, as labels that arrive with the cancelling invoice."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from contract.events import Label
from demo.online_retail.invoices import Invoice, InvoiceLine
from demo.simulator.records import SourceRecord

TASK: Final = "cancellation"


@dataclass(slots=True)
class CancellationMatcher:
    """Which earlier order a cancelled line is about. `unmatched_by`: cancelled lines, by why they match none."""

    unmatched_by: Counter[str] = field(default_factory=Counter)
    _purchases: defaultdict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def unmatched(self) -> int:
        """How many cancelled lines have matched no order so far."""
        return self.unmatched_by.total()

    def add_order(self, order: Invoice) -> None:
        """An order that may be cancelled later; what becomes a dead letter is never judged."""
        if order.is_clean:
            for row in order.lines:
                self._purchases[order.customer, row.stock_code].append((row.quantity, order.number))

    def make_labels(self, invoice: Invoice) -> Iterator[SourceRecord]:
        """What a cancelling invoice says: one label for each order that any of its lines match."""
        order_numbers = dict.fromkeys(number for row in invoice.lines if (number := self._match(invoice.customer, row)))
        for number in order_numbers:
            label = Label(
                event_id=f"{invoice.number}~{number}",
                ts_ms=invoice.ts_ms,
                user_id=invoice.customer,
                judged_event_id=number,
                task=TASK,
                value=1.0,
            )
            yield SourceRecord("labels", invoice.customer, label, invoice.ts_ms)

    def _match(self, customer: str, row: InvoiceLine) -> str | None:
        """The number of the order that a cancelled line judges."""
        if not customer:
            self.unmatched_by["no_customer"] += 1
            return None
        for quantity, number in reversed(self._purchases.get((customer, row.stock_code), [])):
            if quantity >= -row.quantity:
                return number
        self.unmatched_by["no_order"] += 1
        return None
