"""The oracle of profiles: the specification as plain code, one event at a time, with dictionaries and integers.

It is independent of the fold that it tests: it uses only the events, the hash of ids and the time units of the
contract, and states every rule a second time. It is meant to be simple, not fast.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final, TypeAlias

from contract.events.model import Click, Event, Impression, Judgement, Line, Order, Review, Search, UserEvent
from contract.hashing import hash_id
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS
from testkit.oracle.logins import LoginOracle

WIDTHS_MS: Final = {
    "10m": 10 * MINUTE_MS,
    "1h": HOUR_MS,
    "1d": DAY_MS,
    "7d": 7 * DAY_MS,
    "30d": 30 * DAY_MS,
}
HORIZON_MS: Final = 180 * DAY_MS
RING: Final = 8
TASKS: Final = ("fraud", "brushing", "fake_review", "cancellation")
KINDS: Final = ("user", "device", "ip", "card", "item", "seller")
LINE_TOTAL_MAX: Final = 10**11  # a billion, in hundredths
HISTORY: Final = 64
CLICK, ORDER = 1, 3  # actions of a history

FIRST, SECOND = 0, 1
Links: TypeAlias = dict[int, list[str]]
HistoryEntry: TypeAlias = tuple[int, int, int]  # an item's hash, the second, the action


@dataclass
class OracleSlice:
    """The contribution of one source partition to one entity. `cells[width][number]`: count and sum of a cell.

    `history`: of a user, the latest items; a record of its own.
    """

    offset: int = -1
    count: int = 0
    sum: int = 0
    first_ms: int = 0
    last_ms: int = 0
    cells: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: {width: {} for width in WIDTHS_MS})
    links: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))  # id -> seconds
    judged: dict[tuple[str, str], int] = field(default_factory=dict)  # task, "good" or "bad"
    orders: deque[int] = field(default_factory=lambda: deque(maxlen=RING))
    history: deque[HistoryEntry] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def newest_cell(self, width: str) -> int:
        return max(self.cells[width], default=0)

    def cell(self, width: str, number: int) -> tuple[int, int]:
        return self.cells[width].get(number, (0, 0))


class ProfileOracle:
    """All slices, by entity and source, after the added records, without those of erased users; links are unmasked.

    `declared`: by the kind of a declared entity, what names it (`kind:id`) in an event, or None.
    """

    def __init__(
        self,
        erased_until: dict[str, int] | None = None,
        declared: Mapping[str, Callable[[Event], str | None]] | None = None,
    ) -> None:
        self.declared = declared or {}
        self.slices: dict[tuple[str, str], OracleSlice] = {}
        self.erased_until = erased_until or {}  # user entity -> the last erased millisecond
        self.logins = LoginOracle()

    def add(self, source: str, offset: int, event: Event) -> None:
        """Add a record of a source (`orders/3`), in the order of its offsets."""
        self.logins.add(source, event, self.erased_until)
        for entity, amount, links in [*entity_updates(event), *self._find_declared_updates(event)]:
            if entity in self.erased_until and event.ts_ms <= self.erased_until[entity]:
                continue  # skipped in the user's own profile, counted in all others
            old = self.slices.get((entity, source), OracleSlice())
            entries = history_entries(event) if entity.startswith("user:") else []
            self.slices[entity, source] = fold_event(old, source, offset, event, amount, links, entries)

    def _find_declared_updates(self, event: Event) -> Iterator[tuple[str, int, Links]]:
        """The updates of declared entities: those of the user by amount, linked with the user, and the order's card."""
        if isinstance(event, Judgement):
            for entity in dict.fromkeys(event.entities):
                if entity.split(":")[0] in self.declared:
                    yield entity, 0, {}
            return
        for _, amount, _ in [update for update in entity_updates(event) if update[0].startswith("user:")]:
            links: Links = {}
            if isinstance(event, Order | Click | Review):
                links = {FIRST: [f"user:{event.user_id}"]}
            if isinstance(event, Order) and event.card_id:
                links[SECOND] = [f"card:{event.card_id}"]
            for name in self.declared.values():
                if (entity_name := name(event)) is not None:
                    yield entity_name, amount, links

    def histories(self) -> dict[tuple[str, str], list[HistoryEntry]]:
        """The history of each user and source that has one."""
        return {name: list(own.history) for name, own in self.slices.items() if own.history}

    def slices_of(self, entity: str) -> dict[str, OracleSlice]:
        """The slices of an entity by source."""
        return {source: entity_slice for (name, source), entity_slice in self.slices.items() if name == entity}


def fold_event(
    state: OracleSlice,
    source: str,
    offset: int,
    event: Event,
    amount: int,
    links: Links,
    entries: list[HistoryEntry],
) -> OracleSlice:
    """The slice after an event; events that it includes already are skipped, and a slice past the horizon is reset."""
    if offset <= state.offset:
        return state
    if event.ts_ms - state.last_ms > HORIZON_MS:
        state = OracleSlice()
    state.offset = offset
    if source.startswith("orders"):
        order_id = hash_id(event.event_id)
        if order_id in state.orders:
            return state
        state.orders.append(order_id)
    if isinstance(event, Judgement):
        if event.task not in TASKS or isinstance(event.value, str):
            return state
        verdict = "bad" if event.value > 0 else "good"
        state.judged[event.task, verdict] = state.judged.get((event.task, verdict), 0) + 1
        state.last_ms = max(state.last_ms, event.ts_ms)
        if event.task != "fraud":
            return state
        amount = 1 if verdict == "bad" else 0
    add_to_cells(state, event.ts_ms, amount)
    for ring, idents in links.items():
        for ident in idents:
            add_link(state.links[ring], hash_id(ident), event.ts_ms // 1000)
    state.history.extend(entries)
    return state


def history_entries(event: Event) -> list[HistoryEntry]:
    """What an event adds to its user's history: the clicked item, or each distinct item of an order."""
    if isinstance(event, Click):
        return [(hash_id(f"item:{event.item_id}"), event.ts_ms // 1000, CLICK)]
    if isinstance(event, Order):
        items = dict.fromkeys(line.item_id for line in event.lines if line.item_id)
        return [(hash_id(f"item:{item}"), event.ts_ms // 1000, ORDER) for item in items]
    return []


def add_to_cells(state: OracleSlice, ts_ms: int, amount: int) -> None:
    """Every event is in the totals, and in its cell if that is the newest or the previous one."""
    state.first_ms = min(state.first_ms, ts_ms) if state.count else ts_ms
    state.last_ms = max(state.last_ms, ts_ms)
    state.count += 1
    state.sum += amount
    for width, width_ms in WIDTHS_MS.items():
        number = ts_ms // width_ms
        if number >= state.newest_cell(width) - 1:
            counted, summed = state.cell(width, number)
            state.cells[width][number] = (counted + 1, summed + amount)


def add_link(ring: dict[int, int], ident: int, seen_s: int) -> None:
    """The most recent distinct ids stay, ties by the greater id."""
    ring[ident] = max(seen_s, ring.get(ident, 0))
    if len(ring) > RING:
        del ring[min(ring, key=lambda key: (ring[key], key))]


def to_hundredths(number: float) -> int:
    return round(number * 100)


def entity_updates(event: Event) -> Iterator[tuple[str, int, Links]]:
    """The entities that an event updates, once each, with the amount and the linked ids of each."""
    for kind, update_entities in UPDATES_BY_TYPE.items():
        if type(event) is kind:
            yield from update_entities(event)


def network_entities(event: Order | Click | Review) -> list[str]:
    devices = [f"device:{event.device_id}"] if event.device_id else []
    return devices + ([f"ip:{address_id(event.ip)}"] if event.ip else [])


def address_id(address: str) -> str:
    """An IPv4 address by itself, an IPv6 address by its first 64 bits."""
    if ":" not in address:
        return address
    return f"{IPv6Address(int(IPv6Address(address)) >> 64 << 64)}/64"


def user_entities(event: UserEvent) -> list[str]:
    """The user, unless it is a guest."""
    return [f"user:{event.user_id}"] if event.user_id else []


def order_updates(order: Order) -> Iterator[tuple[str, int, Links]]:
    users, amount = user_entities(order), to_hundredths(order.amount)
    card = [f"card:{order.card_id}"] if order.card_id else []
    device = [f"device:{order.device_id}"] if order.device_id else []
    items = list(dict.fromkeys(f"item:{line.item_id}" for line in order.lines if line.item_id))
    for user in users:
        yield user, amount, {FIRST: items[-RING:], SECOND: network_entities(order) + card}
    for entity in network_entities(order):
        yield entity, amount, {FIRST: users, SECOND: card}
    for card_entity in card:
        yield card_entity, amount, {FIRST: users, SECOND: device}
    for item in items:
        yield item, line_total([line for line in order.lines if f"item:{line.item_id}" == item]), {FIRST: users}
    for seller in dict.fromkeys(line.seller_id for line in order.lines if line.seller_id):
        yield (
            f"seller:{seller}",
            line_total([line for line in order.lines if line.seller_id == seller]),
            {FIRST: users},
        )


def line_total(lines: list[Line]) -> int:
    """Hundredths of some lines of one order; more than a billion counts as a billion."""
    return min(LINE_TOTAL_MAX, sum(to_hundredths(line.unit_price * line.quantity) for line in lines))


def click_updates(click: Click) -> Iterator[tuple[str, int, Links]]:
    for user in user_entities(click):
        yield user, 0, {FIRST: [f"item:{click.item_id}"], SECOND: network_entities(click)}
    for entity in [f"item:{click.item_id}", *network_entities(click)]:
        yield entity, 0, {FIRST: user_entities(click)}


def review_updates(review: Review) -> Iterator[tuple[str, int, Links]]:
    stars, seller = to_hundredths(review.rating), [f"seller:{review.seller_id}"] if review.seller_id else []
    for user in user_entities(review):
        yield user, stars, {FIRST: [f"item:{review.item_id}"], SECOND: network_entities(review)}
    for entity in [f"item:{review.item_id}", *seller, *network_entities(review)]:
        yield entity, stars, {FIRST: user_entities(review)}


def impression_updates(impression: Impression) -> Iterator[tuple[str, int, Links]]:
    for user in user_entities(impression):
        yield user, len(impression.items), {}


def search_updates(search: Search) -> Iterator[tuple[str, int, Links]]:
    for user in user_entities(search):
        yield user, 0, {}


def judgement_updates(judgement: Judgement) -> Iterator[tuple[str, int, Links]]:
    for entity in dict.fromkeys(judgement.entities):
        if entity.split(":")[0] in KINDS:
            yield entity, 0, {}


UPDATES_BY_TYPE: Final[dict[type[Event], Callable[..., Iterator[tuple[str, int, Links]]]]] = {
    Order: order_updates,
    Click: click_updates,
    Review: review_updates,
    Impression: impression_updates,
    Search: search_updates,
    Judgement: judgement_updates,
}
