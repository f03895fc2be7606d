"""Reads the invoices of the Online Retail file, without any repair."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq

from contract.errors import BadData

COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)


class InvoiceLine(NamedTuple):
    """One line of an invoice."""

    stock_code: str
    description: str | None
    quantity: int
    unit_price: float


@dataclass(frozen=True, slots=True)
class Invoice:
    """All lines with one invoice number. `customer` is empty where the file has none."""

    number: str
    ts_ms: int
    customer: str
    country: str
    lines: list[InvoiceLine]

    @property
    def is_cancellation(self) -> bool:
        return self.number.startswith("C")

    @property
    def is_clean(self) -> bool:
        """Whether it decodes as an order."""
        return bool(self.customer) and all(line.quantity > 0 and line.unit_price >= 0 for line in self.lines)


def read_invoices(path: Path, limit: int | None = None) -> list[Invoice]:
    """The first `limit` invoices of the Parquet file (None: all), in the order of their first lines.

    Raises `BadData` if the file cannot be read.
    """
    try:
        # One batch at a time: the whole file as Python values would take half a gigabyte.
        with pq.ParquetFile(parquet_path(path)) as file:
            invoices: dict[str, Invoice] = {}
            for batch in file.iter_batches(columns=list(COLUMNS)):
                for values in zip(*(batch.column(name).to_pylist() for name in COLUMNS), strict=True):
                    add_line(invoices, values)
                if limit is not None and len(invoices) > limit:
                    break
    except (OSError, ValueError) as error:
        raise BadData(f"Online Retail should be a Parquet file with the columns {COLUMNS}. Found: {error}") from error
    return list(invoices.values())[:limit]


def add_line(invoices: dict[str, Invoice], values: tuple[Any, ...]) -> None:
    """Add a line of the file to its invoice, which has the time and customer of its first line."""
    number, stock_code, description, quantity, date, price, customer, country = values
    if (invoice := invoices.get(number)) is None:
        customer = "" if customer is None else str(int(customer))
        invoice = invoices[number] = Invoice(number, to_epoch_ms(date), customer, country, [])
    invoice.lines.append(InvoiceLine(stock_code, description, quantity, price))


def to_epoch_ms(date: datetime) -> int:
    return int(date.replace(tzinfo=UTC).timestamp() * 1000)


def parquet_path(path: Path) -> Path:
    """The path of the file, given its path or its folder."""
    return path / "online_retail.parquet" if path.is_dir() else path
