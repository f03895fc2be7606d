"""Matches cancelled invoice lines to earlier orders, and makes labels at the time of the cancelling invoice."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from contract.events.model import Label
from demo.online_retail.invoices import Invoice, InvoiceLine
from demo.simulator.records import SourceRecord

TASK: Final = "cancellation"


@dataclass(slots=True)
class CancellationMatcher:
    """Matches cancelled lines to earlier orders. `unmatched_by`: number of lines without a match, by reason."""

    unmatched_by: Counter[str] = field(default_factory=Counter)
    _purchases: defaultdict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def unmatched(self) -> int:
        """Number of cancelled lines without a match so far."""
        return self.unmatched_by.total()

    def add_order(self, order: Invoice) -> None:
        """Remember an order, which may be cancelled later; skip one that becomes a dead letter."""
        if order.is_clean:
            for row in order.lines:
                self._purchases[order.customer, row.stock_code].append((row.quantity, order.number))

    def make_labels(self, invoice: Invoice) -> Iterator[SourceRecord]:
        """One label for each order that a line of the cancelling invoice matches."""
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
        """The number of the order that a cancelled line matches, or None."""
        if not customer:
            self.unmatched_by["no_customer"] += 1
            return None
        for quantity, number in reversed(self._purchases.get((customer, row.stock_code), [])):
            if quantity >= -row.quantity:
                return number
        self.unmatched_by["no_order"] += 1
        return None
