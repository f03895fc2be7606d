"""Online Retail as a stream: every invoice of a real shop of 2010 and 2011, as orders, products and labels.

    an invoice              an Order, as it is: one that breaks the bounds goes out and becomes a dead letter
    a clean sale            a Product when its StockCode is first sold, and again when a new price has stood a month
    an invoice C...         Labels of the task `cancellation`, value 1, at the time of the cancelling invoice

A cancelled line judges the latest earlier order of its customer that has a line of that StockCode with at least that
quantity. One cancelling invoice says of one order at most once that it was cancelled, whatever number of its lines
match. Lines that match no order are counted. Times are taken as UTC, prices are pounds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from msgspec.structs import replace

from contract.events import Product
from demo.cancellations import Cancellations
from demo.happenings import ENCODE, Happening
from demo.invoices import Invoice, Row, parquet_of, read_invoices

CURRENCY: Final = "GBP"
# Prices differ from customer to customer by the quantity they take; a catalogue that followed each would only flicker.
PRICE_STANDS_MS: Final = 30 * 86_400_000


class OnlineRetail:
    """The stream of the whole file, or of its first `limit` invoices; `cancellations` counts what matched none."""

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.invoices = read_invoices(path, limit)
        self.cancellations = Cancellations()

    def happenings(self) -> Iterator[Happening]:
        """Products before the order that shows them, each invoice in its turn."""
        prices, self.cancellations = PriceList(), Cancellations()
        for invoice in self.invoices:
            if invoice.cancels:
                yield from self.cancellations.labels(invoice)
                continue
            yield from prices.products(invoice)
            yield order_of(invoice)
            self.cancellations.remember(invoice)


def order_of(invoice: Invoice) -> Happening:
    """The invoice as an Order, repaired nowhere; without a customer it has no `user_id`."""
    order: dict[str, Any] = {"event_id": invoice.number, "ts_ms": invoice.ts_ms}
    if invoice.customer:
        order["user_id"] = invoice.customer
    order["lines"] = [
        {"item_id": row.stock_code, "quantity": row.quantity, "unit_price": row.unit_price} for row in invoice.rows
    ]
    order["amount"] = round(sum(row.quantity * row.unit_price for row in invoice.rows), 2)
    order |= {"currency": CURRENCY, "payment_method": "invoice", "shipping_country": invoice.country}
    return Happening("orders", invoice.customer, ENCODE(order), invoice.ts_ms)


class PriceList:
    """Products as sales show them: rows without a price are corrections of the stock, with words like `damaged`."""

    def __init__(self) -> None:
        self._known: dict[str, Product] = {}

    def products(self, invoice: Invoice) -> Iterator[Happening]:
        """What this invoice shows of products for the first time, and prices that are new by now."""
        for row in invoice.rows:
            if row.quantity <= 0 or row.unit_price <= 0 or not row.description:
                continue
            known = self._known.get(row.stock_code)
            if known is None:
                yield self._put(self._first(invoice, row))
            elif known.price != row.unit_price and invoice.ts_ms - known.ts_ms >= PRICE_STANDS_MS:
                yield self._put(self._repriced(known, invoice, row))

    def _put(self, product: Product) -> Happening:
        self._known[product.item_id] = product
        return Happening("products", product.item_id, product, product.ts_ms)

    def _first(self, invoice: Invoice, row: Row) -> Product:
        return Product(
            event_id=f"{invoice.number}~{row.stock_code}",
            ts_ms=invoice.ts_ms,
            item_id=row.stock_code,
            title=(row.description or "").strip(),
            price=row.unit_price,
            currency=CURRENCY,
            available=True,
        )

    def _repriced(self, known: Product, invoice: Invoice, row: Row) -> Product:
        event_id = f"{invoice.number}~{row.stock_code}"
        return replace(known, event_id=event_id, ts_ms=invoice.ts_ms, price=row.unit_price)


def expected_dead_letters(path: Path) -> dict[str, int]:
    """How many invoices of the file must become dead letters, by reason, counted from the file's own columns.

    A line out of bounds is met before the missing customer, since fields are checked where they stand and what is
    missing is noticed at the end.
    """
    with_customer, bad, orders = set[str](), set[str](), dict[str, None]()
    for number, _, quantity, price, customer in read_columns(path):
        if number.startswith("C"):
            continue
        orders[number] = None
        if quantity < 1 or price < 0:
            bad.add(number)
        if customer is not None:
            with_customer.add(number)
    reasons = Counter(
        "out_of_range" if number in bad else "missing_field"
        for number in orders
        if number in bad or number not in with_customer
    )
    return dict(reasons)


def read_columns(path: Path) -> Iterable[tuple[str, str, int, float, float | None]]:
    columns = ("InvoiceNo", "StockCode", "Quantity", "UnitPrice", "CustomerID")
    table = pq.read_table(parquet_of(path), columns=list(columns))
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)
