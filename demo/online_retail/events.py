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
from demo.online_retail.cancellations import CancellationMatcher
from demo.online_retail.invoices import Invoice, InvoiceLine, parquet_path, read_invoices
from demo.simulator.records import SourceRecord, encode_json

CURRENCY: Final = "GBP"
# Prices differ from customer to customer by the quantity they take; a catalogue that followed each would only flicker.
PRICE_STANDS_MS: Final = 30 * 86_400_000


class OnlineRetail:
    """The stream of the whole file, or of its first `limit` invoices; `cancellations` counts what matched none."""

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.invoices = read_invoices(path, limit)
        self.cancellations = CancellationMatcher()

    def records(self) -> Iterator[SourceRecord]:
        """Products before the order that shows them, each invoice in its turn."""
        prices, self.cancellations = PriceList(), CancellationMatcher()
        for invoice in self.invoices:
            if invoice.is_cancellation:
                yield from self.cancellations.make_labels(invoice)
                continue
            yield from prices.update(invoice)
            yield make_order_record(invoice)
            self.cancellations.add_order(invoice)


def make_order_record(invoice: Invoice) -> SourceRecord:
    """The invoice as an Order, repaired nowhere; without a customer it has no `user_id`."""
    order: dict[str, Any] = {"event_id": invoice.number, "ts_ms": invoice.ts_ms}
    if invoice.customer:
        order["user_id"] = invoice.customer
    order["lines"] = [
        {"item_id": line.stock_code, "quantity": line.quantity, "unit_price": line.unit_price} for line in invoice.lines
    ]
    order["amount"] = round(sum(line.quantity * line.unit_price for line in invoice.lines), 2)
    order |= {"currency": CURRENCY, "payment_method": "invoice", "shipping_country": invoice.country}
    return SourceRecord("orders", invoice.customer, encode_json(order), invoice.ts_ms)


class PriceList:
    """Products as sales show them: rows without a price are corrections of the stock, with words like `damaged`."""

    def __init__(self) -> None:
        self._products: dict[str, Product] = {}

    def update(self, invoice: Invoice) -> Iterator[SourceRecord]:
        """What this invoice shows of products for the first time, and prices that are new by now."""
        for line in invoice.lines:
            if line.quantity <= 0 or line.unit_price <= 0 or not line.description:
                continue
            product = self._products.get(line.stock_code)
            if product is None:
                yield self._store(self._make_product(invoice, line))
            elif product.price != line.unit_price and invoice.ts_ms - product.ts_ms >= PRICE_STANDS_MS:
                yield self._store(self._reprice(product, invoice, line))

    def _store(self, product: Product) -> SourceRecord:
        self._products[product.item_id] = product
        return SourceRecord("products", product.item_id, product, product.ts_ms)

    def _make_product(self, invoice: Invoice, line: InvoiceLine) -> Product:
        return Product(
            event_id=f"{invoice.number}~{line.stock_code}",
            ts_ms=invoice.ts_ms,
            item_id=line.stock_code,
            title=(line.description or "").strip(),
            price=line.unit_price,
            currency=CURRENCY,
            available=True,
        )

    def _reprice(self, product: Product, invoice: Invoice, line: InvoiceLine) -> Product:
        event_id = f"{invoice.number}~{line.stock_code}"
        return replace(product, event_id=event_id, ts_ms=invoice.ts_ms, price=line.unit_price)


def count_expected_dead_letters(path: Path) -> dict[str, int]:
    """How many invoices of the file must become dead letters, by reason, counted from the file's own columns.

    A line out of bounds is met before the missing customer, since fields are checked where they stand and what is
    missing is noticed at the end.
    """
    with_customer, out_of_range, orders = set[str](), set[str](), dict[str, None]()
    for number, _, quantity, price, customer in read_columns(path):
        if number.startswith("C"):
            continue
        orders[number] = None
        if quantity < 1 or price < 0:
            out_of_range.add(number)
        if customer is not None:
            with_customer.add(number)
    reasons = Counter(
        "out_of_range" if number in out_of_range else "missing_field"
        for number in orders
        if number in out_of_range or number not in with_customer
    )
    return dict(reasons)


def read_columns(path: Path) -> Iterable[tuple[str, str, int, float, float | None]]:
    columns = ("InvoiceNo", "StockCode", "Quantity", "UnitPrice", "CustomerID")
    table = pq.read_table(parquet_path(path), columns=list(columns))
    return zip(*(table.column(name).to_pylist() for name in columns), strict=True)
