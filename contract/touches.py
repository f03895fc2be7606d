"""Which entities an event touches, with what amount and which linked ids: events become the columns that a fold reads.

event        entities                             first links       second links
Order        user                                 the last 8 items  device, ip, card
             device, ip                           user              card
             card                                 user              device
             each item, each seller               user              -
Click        user                                 item              device, ip
             item, device, ip                     user              -
Review       user                                 item              device, ip
             item, seller, device, ip             user              -
Impression, Search   user                         -                 -
Judgement    the entities of the judged event     -                 -

An order's user, device, ip and card are touched with its amount; an item and a seller with the total of their own
lines, of which no more than a billion counts: sums are 64 bits wide.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.events import Click, Event, Impression, Judgement, Order, Review, Search, UserEvent
from contract.hashing import hash_id
from contract.profiles import ENTITY_KINDS, FAMILIES, JUDGED_TASKS, RING, source_family

FAMILY_CODES: Final = {family: code for code, family in enumerate(FAMILIES)}
TASK_CODES: Final = {task: code for code, task in enumerate(JUDGED_TASKS)}
LINES_TOTAL_MAX: Final = 10**11


class Arrival(NamedTuple):
    """A decoded event and where it stands in the log; `source` is its topic's kind and partition (`orders/3`)."""

    source: str
    offset: int
    event: Event
    topic: str = ""
    partition: int = 0


class Touch(NamedTuple):
    """One entity (`kind:id`) touched by one event."""

    entity: str
    amount: int = 0
    first: Sequence[str] = ()
    second: Sequence[str] = ()


def minor(money: float) -> int:
    """Money in hundredths of its unit; floats added in another order differ, integers do not."""
    return round(money * 100)


def ip_id(ip: str) -> str:
    """An IP address as an id: lower case, and with hyphens, since colons structure keys."""
    return ip.lower().replace(":", "-")


def present(kind: str, ident: str | None) -> list[str]:
    return [f"{kind}:{ident}"] if ident else []


def devices(event: Order | Click | Review) -> list[str]:
    return present("device", event.device_id) + present("ip", event.ip and ip_id(event.ip))


def touch_order(order: Order) -> Iterator[Touch]:
    user, amount = f"user:{order.user_id}", minor(order.amount)
    items: dict[str, int] = {}
    sellers: dict[str, int] = {}
    for line in order.lines:
        total = minor(line.unit_price * line.quantity)
        items[f"item:{line.item_id}"] = items.get(f"item:{line.item_id}", 0) + total
        if line.seller_id:
            sellers[f"seller:{line.seller_id}"] = sellers.get(f"seller:{line.seller_id}", 0) + total
    places, card = devices(order), present("card", order.card_id)
    yield Touch(user, amount, list(items)[-RING:], places + card)
    for place in places:
        yield Touch(place, amount, (user,), card)
    for one in card:
        yield Touch(one, amount, (user,), present("device", order.device_id))
    for entity, total in (items | sellers).items():
        yield Touch(entity, min(total, LINES_TOTAL_MAX), (user,))


def touch_click(click: Click) -> Iterator[Touch]:
    user, item, places = f"user:{click.user_id}", f"item:{click.item_id}", devices(click)
    yield Touch(user, 0, (item,), places)
    for entity in (item, *places):
        yield Touch(entity, 0, (user,))


def touch_review(review: Review) -> Iterator[Touch]:
    user, item, places, stars = (
        f"user:{review.user_id}",
        f"item:{review.item_id}",
        devices(review),
        minor(review.rating),
    )
    yield Touch(user, stars, (item,), places)
    for entity in (item, *present("seller", review.seller_id), *places):
        yield Touch(entity, stars, (user,))


def touch_impression(impression: Impression) -> Iterator[Touch]:
    yield Touch(f"user:{impression.user_id}", len(impression.items))


def touch_search(search: Search) -> Iterator[Touch]:
    yield Touch(f"user:{search.user_id}")


def touch_judgement(judgement: Judgement) -> Iterator[Touch]:
    for entity in dict.fromkeys(judgement.entities):
        if entity.partition(":")[0] in ENTITY_KINDS:
            yield Touch(entity)


TOUCHED: Final[dict[type[Event], Callable[..., Iterable[Touch]]]] = {
    Order: touch_order,
    Click: touch_click,
    Review: touch_review,
    Impression: touch_impression,
    Search: touch_search,
    Judgement: touch_judgement,
}


def touches_of(event: Event) -> list[Touch]:
    """Every entity that `event` touches, once each, the user first; events that no fold reads touch none."""
    touched = TOUCHED.get(type(event))
    return list(touched(event)) if touched else []


@dataclass(slots=True)
class Touches:
    """A batch as columns: N arrivals in batch order, T touches (arrival by arrival), L links (touch by touch)."""

    arrivals: Sequence[Arrival]
    entities: list[str]  # the distinct ones, in order of first touch
    start: npt.NDArray[np.int64]  # (N+1) first touch of each arrival
    entity: npt.NDArray[np.int64]  # (T) index into `entities`
    amount: npt.NDArray[np.int64]  # (T)
    link_start: npt.NDArray[np.int64]  # (T+1) first link of each touch
    link_id: npt.NDArray[np.uint64]  # (L)
    link_ring: npt.NDArray[np.int8]  # (L) 0: first, 1: second
    head: npt.NDArray[np.int64]  # (N, 6) ts_ms, offset, family, hash of the event id, judged task or -1, verdict


def columns(arrivals: Sequence[Arrival], watched: Iterable[str] = ()) -> Touches:
    """The columns of a batch; the order of `arrivals` is the order in which they are folded.

    `watched` entities are read with the batch though nothing in it need touch them.
    """
    build = Columns()
    for arrival in arrivals:
        build.add(arrival)
    for entity in watched:
        build.index.setdefault(entity, len(build.index))
    return Touches(
        arrivals=arrivals,
        entities=list(build.index),
        start=np.array(build.start, np.int64),
        entity=np.array(build.entity, np.int64),
        amount=np.array(build.amount, np.int64),
        link_start=np.array(build.link_start, np.int64),
        link_id=np.array(build.link_id, np.uint64),
        link_ring=np.array(build.link_ring, np.int8),
        head=np.array(build.head, np.int64).reshape(len(arrivals), 6),
    )


@dataclass(slots=True)
class Columns:
    """Columns while they grow."""

    index: dict[str, int] = field(default_factory=dict)
    start: list[int] = field(default_factory=lambda: [0])
    entity: list[int] = field(default_factory=list)
    amount: list[int] = field(default_factory=list)
    link_start: list[int] = field(default_factory=lambda: [0])
    link_id: list[int] = field(default_factory=list)
    link_ring: list[int] = field(default_factory=list)
    head: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)

    def add(self, arrival: Arrival) -> None:
        event = arrival.event
        for touch in touches_of(event):
            self.entity.append(self.index.setdefault(touch.entity, len(self.index)))
            self.amount.append(touch.amount)
            self.link_id.extend(map(hash_id, touch.first))
            self.link_ring.extend([0] * len(touch.first))
            self.link_id.extend(map(hash_id, touch.second))
            self.link_ring.extend([1] * len(touch.second))
            self.link_start.append(len(self.link_id))
        self.start.append(len(self.entity))
        family = FAMILY_CODES.get(source_family(arrival.source), -1)
        self.head.append((event.ts_ms, arrival.offset, family, hash_id(event.event_id), *verdict(event)))


def verdict(event: Event) -> tuple[int, int]:
    """Which judged task an event speaks of (-1: none that profiles count) and 1 for bad, 0 for good."""
    if not isinstance(event, Judgement) or isinstance(event.value, str):
        return -1, 0
    return TASK_CODES.get(event.task, -1), int(event.value > 0)


def user_of(event: Event) -> str:
    """The user entity of an event, or an empty string for events without a user."""
    return f"user:{event.user_id}" if isinstance(event, UserEvent) else ""
