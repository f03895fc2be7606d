"""The card payments of the Reproducible Fraud Detection Handbook as a shop's stream, with labels seven days late.

A payment is an order: the Handbook's customer is its user and card, the terminal its seller. Each has a judgement
exactly seven days later, fraud or not, so profiles contain no label of a payment before that. Of a payment and a
judgement at the same millisecond the judgement comes first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from contract.arrays import Floats, Integers
from contract.events.model import Judgement, Line, Order
from contract.profiles.entity_updates import Arrival
from contract.units import DAY_MS

FILE: Final = Path("fraud_handbook") / "transactions.parquet"
DELAY_MS: Final = 7 * DAY_MS  # from a payment to its label
ITEM: Final = "payment"  # the Handbook has no items


@dataclass(frozen=True, slots=True)
class Payments:
    """N payments in order of time; `fraud` is 0 or 1."""

    ts_ms: Integers
    customer: Integers
    terminal: Integers
    amount: Floats
    fraud: Floats

    def __len__(self) -> int:
        return len(self.ts_ms)

    @property
    def day(self) -> Integers:
        """The day of each payment (N,), counted from 1970."""
        return self.ts_ms // DAY_MS

    def to_order(self, row: int) -> Order:
        """The payment as its order."""
        user = str(self.customer[row])
        seller = str(self.terminal[row])
        amount = float(self.amount[row])
        return Order(
            event_id=f"payment-{row}",
            ts_ms=int(self.ts_ms[row]),
            user_id=user,
            card_id=user,
            lines=(Line(item_id=ITEM, quantity=1, unit_price=amount, seller_id=seller),),
            amount=amount,
            currency="EUR",
            payment_method="card",
        )

    def to_judgement(self, row: int) -> Judgement:
        """The payment's label after its delay, with the entities of its order."""
        user, seller = str(self.customer[row]), str(self.terminal[row])
        return Judgement(
            event_id=f"truth-{row}",
            ts_ms=int(self.ts_ms[row]) + DELAY_MS,
            user_id=user,
            judged_event_id=f"payment-{row}",
            task="fraud",
            value=float(self.fraud[row]),
            entities=(f"user:{user}", f"card:{user}", f"item:{ITEM}", f"seller:{seller}"),
        )


def read_payments(folder: Path, until_ms: int) -> Payments:
    """All payments of the file before `until_ms`, in order of time."""
    table = pq.read_table(folder / FILE, columns=["ts_ms", "customer_id", "terminal_id", "amount", "is_fraud"])
    ts_ms, customer, terminal, amount, fraud = (column.to_numpy() for column in table.columns)
    order = np.argsort(ts_ms, kind="stable")
    order = order[: np.searchsorted(ts_ms[order], until_ms)]
    return Payments(
        ts_ms[order].astype(np.int64),
        customer[order].astype(np.int64),
        terminal[order].astype(np.int64),
        amount[order].astype(np.float64).round(2),
        fraud[order].astype(np.float64),
    )


@dataclass(frozen=True, slots=True)
class ArrivalChunk:
    """Consecutive arrivals; `order_indices`: positions of payments among them; `payment_rows`: these payments' rows."""

    arrivals: list[Arrival]
    order_indices: Integers
    payment_rows: Integers


def iterate_arrivals(payments: Payments, size: int) -> Iterator[ArrivalChunk]:
    """Payments and judgements in order of time until the last payment, in chunks of `size` arrivals."""
    count, offsets = len(payments), {"orders/0": 0, "judgements/0": 0}
    times_ms = np.concatenate([payments.ts_ms + DELAY_MS, payments.ts_ms])
    order = np.argsort(times_ms, kind="stable")
    order = order[times_ms[order] <= payments.ts_ms[-1]] if count else order
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        arrivals = list[Arrival]()
        for number in chunk.tolist():
            source = "orders/0" if number >= count else "judgements/0"
            event = payments.to_order(number - count) if number >= count else payments.to_judgement(number)
            arrivals.append(Arrival(source, offsets[source], event))
            offsets[source] += 1
        orders = np.flatnonzero(chunk >= count)
        yield ArrivalChunk(arrivals, orders, chunk[orders] - count)
