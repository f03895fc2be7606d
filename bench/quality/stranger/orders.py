"""Orders of a shop with records of its own form: a table, and how a payment of it ends seven days later.

Each shop has customers with devices of their own, rings that order many times from one new device, a trend, and one of
three risks: `steps` (conditions that trees express at once), `smooth` (sums of small effects, and levels of each store)
and `bursts` (little but the history of a device tells).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.arrays import Array, Floats, Integers
from contract.units import DAY_MS

DAYS: Final = 150
LABEL_DELAY_MS: Final = 7 * DAY_MS
BAD_SHARE: Final = 0.06
STORES, DOMAINS = 60, 25
CHANNELS: Final = ("web", "app", "phone", "affiliate")
SHIPPINGS: Final = ("parcel", "express", "pickup", "locker")
PAYMENTS: Final = ("CC", "INVOICE", "WALLET", "GIFTCARD")
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderTable:
    """Orders in order of time; all arrays (N,). `columns`: the shop's own fields, texts as numbers of their words."""

    ts_ms: Integers
    customer: Integers
    device: Integers
    since_ms: Integers  # when the account was created
    columns: Mapping[str, Array]
    bad: Integers

    def __len__(self) -> int:
        return len(self.ts_ms)


def simulate_orders(rows: int, seed: int, end_ms: int) -> OrderTable:
    """The orders of `DAYS` days before `end_ms`; shops of consecutive seeds have different risks."""
    rng = np.random.default_rng(seed)
    ts_ms, customer, device = simulate_visits(rows, rng, end_ms)
    time = (ts_ms - (end_ms - DAYS * DAY_MS)) / (DAYS * DAY_MS)  # 0 to 1
    known_days = rng.exponential(300, customer.max() + 1)
    columns: dict[str, Array] = {
        "channel": draw_words(rng, len(CHANNELS), rows),
        "shipping": draw_words(rng, len(SHIPPINGS), rows),
        "payment": draw_words(rng, len(PAYMENTS), rows),
        "store": draw_words(rng, STORES, rows),
        "domain": rng.permutation(DOMAINS)[draw_words(rng, DOMAINS, customer.max() + 1)][customer],
        "cents": np.round(np.exp(rng.normal(8.6, 0.9, rows))).clip(200).astype(np.int64),
        "pieces": 1 + rng.poisson(0.8, rows),
        "visit_s": np.round(rng.gamma(2, 150, rows), 1),
        "attempts": rng.geometric(0.7, rows),
        "voucher": rng.random(rows) < 0.2,
        "new_address": rng.random(rows) < 0.15,
    }
    since_ms = ts_ms[0] - (known_days[customer] * DAY_MS).astype(np.int64) + (rng.random(rows) * 1000).astype(np.int64)
    table = OrderTable(
        ts_ms=ts_ms, customer=customer, device=device, since_ms=since_ms, columns=columns, bad=np.zeros(rows, np.int64)
    )
    score = RISKS[list(RISKS)[seed % len(RISKS)]](table, time, rng)
    p = 1 / (1 + np.exp(-shift_to_share(score, BAD_SHARE)))
    bad = (rng.random(rows) < p).astype(np.int64)
    return OrderTable(ts_ms=ts_ms, customer=customer, device=device, since_ms=since_ms, columns=columns, bad=bad)


def simulate_visits(rows: int, rng: np.random.Generator, end_ms: int) -> tuple[Integers, Integers, Integers]:
    """Times, customers and devices: a twelfth of the orders are those of rings, 3 to 14 in hours from one device."""
    customers = max(10, rows // 4)
    sizes = rng.integers(3, 15, max(1, rows // 100))
    sizes = sizes[np.cumsum(sizes) < rows // 3]
    ring = np.repeat(np.arange(len(sizes)), sizes)
    others = rows - len(ring)
    customer = np.concatenate([zipf_choice(rng, customers, others), rng.integers(0, customers, len(ring))])
    own = customer[:others] * 3 + (rng.random(others) < 0.25) + (rng.random(others) < 0.08)
    device = np.concatenate([own, 3 * customers + ring])
    start_ms = end_ms - DAYS * DAY_MS
    hours = (np.floor(rng.random(others) * DAYS) * 24 + np.clip(rng.normal(15, 5, others), 0, 23.99)) * HOUR_MS
    begins = rng.random(len(sizes)) * (DAYS - 3) * DAY_MS
    within = rng.exponential(5 * HOUR_MS, len(ring)).clip(max=2 * DAY_MS)
    ts_ms = start_ms + np.concatenate([hours, begins[ring] + within]).astype(np.int64)
    order = np.argsort(ts_ms, kind="stable")
    return ts_ms[order], customer[order], device[order]


def zipf_choice(rng: np.random.Generator, count: int, size: int) -> Integers:
    """Numbers below `count`, the first ones more often."""
    weight = 1 / np.sqrt(1 + np.arange(count))
    return rng.choice(count, size, p=weight / weight.sum())


def draw_words(rng: np.random.Generator, count: int, size: int) -> Integers:
    """Numbers below `count` by shares that differ."""
    return rng.choice(count, size, p=rng.dirichlet(np.full(count, 2.0)))


def count_of_device(table: OrderTable, window_ms: int) -> Integers:
    """Earlier orders of each row's device in the window (N,)."""
    times: dict[int, list[int]] = {}
    counts = np.zeros(len(table), np.int64)
    for row, (device, ts_ms) in enumerate(zip(table.device.tolist(), table.ts_ms.tolist(), strict=True)):
        earlier = times.setdefault(device, [])
        counts[row] = sum(ts_ms - window_ms < time for time in earlier)
        earlier.append(ts_ms)
    return counts


def risk_by_steps(table: OrderTable, time: Floats, rng: np.random.Generator) -> Floats:
    fields, day_count = table.columns, count_of_device(table, DAY_MS)
    dear = fields["cents"] > 9_000
    is_new = count_of_device(table, DAYS * DAY_MS) == 0
    risky = rng.permutation(DOMAINS)[:5]
    score: Floats = (
        2.2 * ((fields["shipping"] == 1) & dear)
        + 1.8 * ((fields["payment"] == 1) & fields["new_address"])
        + 1.6 * ((fields["attempts"] >= 3) & (fields["visit_s"] < 200))
        + 1.5 * (np.isin(fields["domain"], risky) & is_new & (time > 0.3))
        + 1.4 * (day_count >= 2)
        + 0.9 * (day_count >= 5)
        + 1.2 * ((fields["channel"] == 3) & (fields["voucher"] != (fields["pieces"] > 2)))
    )
    return score


def risk_by_sums(table: OrderTable, time: Floats, rng: np.random.Generator) -> Floats:
    fields, week_count = table.columns, count_of_device(table, 7 * DAY_MS)
    age_days = (table.ts_ms - table.since_ms) / DAY_MS
    hour = table.ts_ms / HOUR_MS % 24
    store, trend = rng.normal(0, 0.7, STORES), rng.normal(0, 0.7, STORES)
    return (
        store[fields["store"]]
        + trend[fields["store"]] * time
        + rng.normal(0, 0.6, DOMAINS)[fields["domain"]]
        + rng.normal(0, 0.5, (len(SHIPPINGS), len(PAYMENTS)))[fields["shipping"], fields["payment"]]
        + 0.6 * (np.log(fields["cents"]) - 8.6)
        - 0.35 * np.log1p(age_days)
        + 0.5 * np.cos((hour - 3) / 24 * 2 * np.pi)
        - 0.3 * np.log1p(fields["visit_s"]) * fields["attempts"] / 2
        + 0.7 * np.log1p(week_count)
        + 0.5 * fields["voucher"] * time
    )


def risk_of_bursts(table: OrderTable, time: Floats, rng: np.random.Generator) -> Floats:
    fields = table.columns
    day_count, all_count = count_of_device(table, DAY_MS), count_of_device(table, DAYS * DAY_MS)
    character = rng.normal(0, 1.5, table.device.max() + 1)[table.device]  # a device keeps it, and labels tell it
    score: Floats = (
        1.2 * np.log1p(day_count) * (1 + (fields["payment"] == 3))
        + character
        + 0.8 * (all_count == 0) * (fields["channel"] != 1)
        + 0.5 * (fields["cents"] > 12_000) * (fields["shipping"] != 2)
        + rng.normal(0, 0.4, STORES)[fields["store"]] * np.where(time > 0.6, -1, 1)
    )
    return score


def shift_to_share(score: Floats, share: float) -> Floats:
    """The logits, shifted so that the mean probability is `share`."""
    low, high = -30.0, 30.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        is_above = np.mean(1 / (1 + np.exp(-(score + middle)))) > share
        low, high = (low, middle) if is_above else (middle, high)
    return score + low


RISKS: Final[Mapping[str, Callable[[OrderTable, Floats, np.random.Generator], Floats]]] = {
    "steps": risk_by_steps,
    "smooth": risk_by_sums,
    "bursts": risk_of_bursts,
}
