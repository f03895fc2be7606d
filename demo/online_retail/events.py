"""Online Retail as a stream: every invoice of a real shop of 2010 and 2011, as orders, products and labels.

    an invoice              an Order, unchanged: one with values out of range is sent and becomes a dead letter
    a clean sale            a Product when its StockCode is first sold, and at a new price a month or more later
    an invoice C...         Labels of the task `cancellation`, value 1, at the time of the cancelling invoice

A cancelled line matches the latest earlier order of its customer that has a line of that StockCode with at least that
quantity. A cancelling invoice makes at most one label for an order. Lines that match no order are counted. Times are
read as UTC, prices are in pounds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq
from msgspec.structs import replace

from contract.events.model import Product
from contract.units import DAY_MS
from demo.online_retail.cancellations import CancellationMatcher
from demo.online_retail.invoices import Invoice, InvoiceLine, parquet_path, read_invoices
from demo.simulator.records import SourceRecord, encode_json

CURRENCY: Final = "GBP"
# Prices vary between invoices with the quantity, so a product that followed every invoice would change all the time.
PRICE_CHANGE_MIN_MS: Final = 30 * DAY_MS


class OnlineRetail:
    """The stream of the whole file, or of its first `limit` invoices; `cancellations` counts unmatched lines."""

    def __init__(self, path: Path, *, limit: int | None = None) -> None:
        self.invoices = read_invoices(path, limit)
        self.cancellations = CancellationMatcher()

    def records(self) -> Iterator[SourceRecord]:
        """Records of each invoice in order, new products before the order."""
        prices = PriceList()
        self.cancellations = CancellationMatcher()
        for invoice in self.invoices:
            if invoice.is_cancellation:
                yield from self.cancellations.make_labels(invoice)
                continue
            yield from prices.update(invoice)
            yield make_order_record(invoice)
            self.cancellations.add_order(invoice)


def make_order_record(invoice: Invoice) -> SourceRecord:
    """The invoice as an Order, without any repair; it has no `user_id` if the file has no customer."""
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
    """Derives products from sales. Skips lines without a price: they are stock corrections, such as `damaged`."""

    def __init__(self) -> None:
        self._products: dict[str, Product] = {}

    def update(self, invoice: Invoice) -> Iterator[SourceRecord]:
        """Records of products that are new in this invoice, or whose price changes with it."""
        for line in invoice.lines:
            if line.quantity <= 0 or line.unit_price <= 0 or not line.description:
                continue
            product = self._products.get(line.stock_code)
            if product is None:
                yield self._store(self._make_product(invoice, line))
            elif product.price != line.unit_price and invoice.ts_ms - product.ts_ms >= PRICE_CHANGE_MIN_MS:
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
    """Number of invoices that must become dead letters, by reason, counted from the columns of the file.

    A value out of range takes precedence over a missing customer: decoding checks each field when it reads it, and
    missing fields at the end.
    """
    with_customer = set[str]()
    out_of_range = set[str]()
    orders = dict[str, None]()
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
