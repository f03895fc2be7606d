"""Profiles as their promise reads: one event at a time, dictionaries and whole numbers.

This judges the fold, so it shares no code with it: it takes nothing from the contract but the types of events and the
hash of ids and states every rule anew. Its speed is of no concern, its plainness is.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contract.events import Click, Event, Impression, Judgement, Line, Order, Review, Search
from contract.hashing import hash_id

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
WIDTHS_MS: Final = {
    "10m": 10 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "1d": DAY_MS,
    "7d": 7 * DAY_MS,
    "30d": 30 * DAY_MS,
}
HORIZON_MS: Final = 180 * DAY_MS
RING: Final = 8
TASKS: Final = ("fraud", "brushing", "fake_review", "cancellation")
KINDS: Final = ("user", "device", "ip", "card", "item", "seller")
LINE_TOTAL_MAX: Final = 10**11  # a billion, in hundredths

FIRST, SECOND = 0, 1
Links: TypeAlias = dict[int, list[str]]


@dataclass
class Slice:
    """What one source partition has told of one entity. `cells[width][number]` is the count and the sum of a cell."""

    offset: int = -1
    count: int = 0
    sum: int = 0
    first_ms: int = 0
    last_ms: int = 0
    cells: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: {width: {} for width in WIDTHS_MS})
    links: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))  # id -> seconds
    judged: dict[tuple[str, str], int] = field(default_factory=dict)  # task, "good" or "bad"
    orders: deque[int] = field(default_factory=lambda: deque(maxlen=RING))

    def newest_cell(self, width: str) -> int:
        return max(self.cells[width], default=0)

    def cell(self, width: str, number: int) -> tuple[int, int]:
        return self.cells[width].get(number, (0, 0))


class Oracle:
    """All slices, by entity and source, after the records that it was told, of which some people are forgotten."""

    def __init__(self, forgotten: dict[str, int] | None = None) -> None:
        self.slices: dict[tuple[str, str], Slice] = {}
        self.forgotten = forgotten or {}  # user entity -> the last millisecond that is to be forgotten

    def tell(self, source: str, offset: int, event: Event) -> None:
        """One record of a source (`orders/3`); the records of a source come in the order of their offsets."""
        for entity, amount, links in told(event):
            if entity in self.forgotten and event.ts_ms <= self.forgotten[entity]:
                continue  # to its own profile this never happened; the others keep it
            found = self.slices.get((entity, source), Slice())
            self.slices[entity, source] = after(found, source, offset, event, amount, links)

    def of(self, entity: str) -> dict[str, Slice]:
        """The slices of an entity by source."""
        return {source: found for (name, source), found in self.slices.items() if name == entity}


def after(found: Slice, source: str, offset: int, event: Event, amount: int, links: Links) -> Slice:
    """The slice that follows `found`: what is already in it is skipped, and what is too old for the rest is dropped."""
    if offset <= found.offset:
        return found
    if event.ts_ms - found.last_ms > HORIZON_MS:
        found = Slice()
    found.offset = offset
    if source.startswith("orders"):
        order_id = hash_id(event.event_id)
        if order_id in found.orders:
            return found
        found.orders.append(order_id)
    if isinstance(event, Judgement):
        if event.task not in TASKS or isinstance(event.value, str):
            return found
        verdict = "bad" if event.value > 0 else "good"
        found.judged[event.task, verdict] = found.judged.get((event.task, verdict), 0) + 1
        found.last_ms = max(found.last_ms, event.ts_ms)
        if event.task != "fraud":
            return found
        amount = 1 if verdict == "bad" else 0
    count(found, event.ts_ms, amount)
    for ring, idents in links.items():
        for ident in idents:
            remember(found.links[ring], hash_id(ident), event.ts_ms // 1000)
    return found


def count(found: Slice, ts_ms: int, amount: int) -> None:
    """Every event is in the totals, and in its cell unless that lies before the one before the newest."""
    found.first_ms = min(found.first_ms, ts_ms) if found.count else ts_ms
    found.last_ms = max(found.last_ms, ts_ms)
    found.count += 1
    found.sum += amount
    for width, width_ms in WIDTHS_MS.items():
        number = ts_ms // width_ms
        if number >= found.newest_cell(width) - 1:
            counted, summed = found.cell(width, number)
            found.cells[width][number] = (counted + 1, summed + amount)


def remember(ring: dict[int, int], ident: int, seen_s: int) -> None:
    """The most recent distinct ids stay; of two seen at once, the greater one."""
    ring[ident] = max(seen_s, ring.get(ident, 0))
    if len(ring) > RING:
        del ring[min(ring, key=lambda one: (ring[one], one))]


def hundredths(number: float) -> int:
    return round(number * 100)


def told(event: Event) -> Iterator[tuple[str, int, Links]]:
    """The entities that an event speaks of, once each, with the amount and the linked ids of each."""
    for kind, speaks in SPEAKS.items():
        if type(event) is kind:
            yield from speaks(event)


def places(event: Order | Click | Review) -> list[str]:
    found = [f"device:{event.device_id}"] if event.device_id else []
    return found + ([f"ip:{event.ip.lower().replace(':', '-')}"] if event.ip else [])


def of_order(order: Order) -> Iterator[tuple[str, int, Links]]:
    user, amount = f"user:{order.user_id}", hundredths(order.amount)
    card = [f"card:{order.card_id}"] if order.card_id else []
    device = [f"device:{order.device_id}"] if order.device_id else []
    items = list(dict.fromkeys(f"item:{line.item_id}" for line in order.lines))
    yield user, amount, {FIRST: items[-RING:], SECOND: places(order) + card}
    for place in places(order):
        yield place, amount, {FIRST: [user], SECOND: card}
    for one in card:
        yield one, amount, {FIRST: [user], SECOND: device}
    for item in items:
        yield item, total([line for line in order.lines if f"item:{line.item_id}" == item]), {FIRST: [user]}
    for seller in dict.fromkeys(line.seller_id for line in order.lines if line.seller_id):
        yield f"seller:{seller}", total([line for line in order.lines if line.seller_id == seller]), {FIRST: [user]}


def total(lines: list[Line]) -> int:
    """Hundredths of some lines of one order; more than a billion counts as a billion."""
    return min(LINE_TOTAL_MAX, sum(hundredths(line.unit_price * line.quantity) for line in lines))


def of_click(click: Click) -> Iterator[tuple[str, int, Links]]:
    yield f"user:{click.user_id}", 0, {FIRST: [f"item:{click.item_id}"], SECOND: places(click)}
    for entity in [f"item:{click.item_id}", *places(click)]:
        yield entity, 0, {FIRST: [f"user:{click.user_id}"]}


def of_review(review: Review) -> Iterator[tuple[str, int, Links]]:
    stars, seller = hundredths(review.rating), [f"seller:{review.seller_id}"] if review.seller_id else []
    yield f"user:{review.user_id}", stars, {FIRST: [f"item:{review.item_id}"], SECOND: places(review)}
    for entity in [f"item:{review.item_id}", *seller, *places(review)]:
        yield entity, stars, {FIRST: [f"user:{review.user_id}"]}


def of_impression(impression: Impression) -> Iterator[tuple[str, int, Links]]:
    yield f"user:{impression.user_id}", len(impression.items), {}


def of_search(search: Search) -> Iterator[tuple[str, int, Links]]:
    yield f"user:{search.user_id}", 0, {}


def of_judgement(judgement: Judgement) -> Iterator[tuple[str, int, Links]]:
    for entity in dict.fromkeys(judgement.entities):
        if entity.split(":")[0] in KINDS:
            yield entity, 0, {}


SPEAKS: Final[dict[type[Event], Callable[..., Iterator[tuple[str, int, Links]]]]] = {
    Order: of_order,
    Click: of_click,
    Review: of_review,
    Impression: of_impression,
    Search: of_search,
    Judgement: of_judgement,
}
