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

An entity is linked only with others that its event touches: `RINGS` is this table for the fold. An order's user,
device, ip and card are touched with its amount; an item and a seller with the total of their own lines, of which no
more than a billion counts: sums are 64 bits wide.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.erasures import NO_ERASURES, Erasures, Gone
from contract.events import Click, Event, Impression, Judgement, Order, Review, Search, UserEvent
from contract.hashing import buckets_of, digests, hash_id
from contract.profiles import ENTITY_KINDS, FAMILIES, JUDGED_TASKS, source_family

FAMILY_CODES: Final = {family: code for code, family in enumerate(FAMILIES)}
KIND_CODES: Final = {kind: code for code, kind in enumerate(ENTITY_KINDS)}
TASK_CODES: Final = {task: code for code, task in enumerate(JUDGED_TASKS)}
LINES_TOTAL_MAX: Final = 10**11

# Whom an event's entities are linked with: the kinds that go to their first and to their second links.
PLACES: Final = ("device", "ip")
USER_ONLY: Final = (("user",), ())
LINKED: Final = {
    "orders": {
        "user": (("item",), ("device", "ip", "card")),
        "device": (("user",), ("card",)),
        "ip": (("user",), ("card",)),
        "card": (("user",), ("device",)),
        "item": USER_ONLY,
        "seller": USER_ONLY,
    },
    "clicks": {"user": (("item",), PLACES), "item": USER_ONLY, "device": USER_ONLY, "ip": USER_ONLY},
    "reviews": {
        "user": (("item",), PLACES),
        "item": USER_ONLY,
        "seller": USER_ONLY,
        "device": USER_ONLY,
        "ip": USER_ONLY,
    },
}


def rings() -> npt.NDArray[np.int8]:
    """`LINKED` by codes: (family, kind, linked kind) -> 0: first links, 1: second, -1: not linked."""
    found = np.full((len(FAMILIES), len(ENTITY_KINDS), len(ENTITY_KINDS)), -1, np.int8)
    for family, kinds in LINKED.items():
        for kind, linked in kinds.items():
            for ring, others in enumerate(linked):
                for other in others:
                    found[FAMILY_CODES[family], KIND_CODES[kind], KIND_CODES[other]] = ring
    return found


RINGS: Final = rings()
NEAR: Final = 5  # all but a user are linked only with entities among the first five that an event touches


class Arrival(NamedTuple):
    """A decoded event and where it stands in the log; `source` is its topic's kind and partition (`orders/3`)."""

    source: str
    offset: int
    event: Event
    topic: str = ""
    partition: int = 0


Touch: TypeAlias = tuple[str, int]  # an entity (`kind:id`) and the amount that one event touches it with


def minor(money: float) -> int:
    """Money in hundredths of its unit; floats added in another order differ, integers do not."""
    return round(money * 100)


def ip_id(ip: str) -> str:
    """An IP address as an id: lower case, and with hyphens, since colons structure keys."""
    return ip.lower().replace(":", "-")


def touch_places(event: Order | Click | Review, amount: int) -> list[Touch]:
    found = []
    if event.device_id:
        found.append((f"device:{event.device_id}", amount))
    if event.ip:
        found.append((f"ip:{ip_id(event.ip)}", amount))
    return found


def touch_order(order: Order) -> list[Touch]:
    amount = minor(order.amount)
    found = [(f"user:{order.user_id}", amount), *touch_places(order, amount)]
    if order.card_id:
        found.append((f"card:{order.card_id}", amount))
    items: dict[str, int] = {}
    sellers: dict[str, int] = {}
    for line in order.lines:
        total = minor(line.unit_price * line.quantity)
        items[line.item_id] = items.get(line.item_id, 0) + total
        if line.seller_id:
            sellers[line.seller_id] = sellers.get(line.seller_id, 0) + total
    for kind, totals in (("item", items), ("seller", sellers)):
        for ident, total in totals.items():
            found.append((f"{kind}:{ident}", total if total < LINES_TOTAL_MAX else LINES_TOTAL_MAX))
    return found


def touch_click(click: Click) -> list[Touch]:
    return [(f"user:{click.user_id}", 0), (f"item:{click.item_id}", 0), *touch_places(click, 0)]


def touch_review(review: Review) -> list[Touch]:
    stars = minor(review.rating)
    found = [(f"user:{review.user_id}", stars), (f"item:{review.item_id}", stars)]
    if review.seller_id:
        found.append((f"seller:{review.seller_id}", stars))
    return found + touch_places(review, stars)


def touch_impression(impression: Impression) -> list[Touch]:
    return [(f"user:{impression.user_id}", len(impression.items))]


def touch_search(search: Search) -> list[Touch]:
    return [(f"user:{search.user_id}", 0)]


def touch_judgement(judgement: Judgement) -> list[Touch]:
    entities = dict.fromkeys(judgement.entities)
    return [(entity, 0) for entity in entities if entity.partition(":")[0] in KIND_CODES]


TOUCHED: Final[dict[type[Event], Callable[..., list[Touch]]]] = {
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
    return touched(event) if touched else []


@dataclass(slots=True)
class Touches:
    """A batch as columns: N arrivals in batch order, T touches arrival by arrival, E entities."""

    arrivals: Sequence[Arrival]
    index: dict[str, int]  # entity -> its number, in order of first touch
    entities: list[str]  # the same by number
    kind: npt.NDArray[np.int64]  # (E) code of the entity's kind
    ident: npt.NDArray[np.uint64]  # (E) `hash_id` of the entity, as it stands among links
    bucket: npt.NDArray[np.int64]  # (E) `bucket_of` the entity
    start: npt.NDArray[np.int64]  # (N+1) first touch of each arrival
    entity: npt.NDArray[np.int64]  # (T) index into `entities`
    amount: npt.NDArray[np.int64]  # (T)
    head: npt.NDArray[np.int64]  # (N, 6) ts_ms, offset, family, hash of an order's id, judged task or -1, verdict
    kept: npt.NDArray[np.bool_]  # (T) False: an erasure covers it; the entity is linked with, and not folded
    gone: Gone  # who is no longer named where links are read

    def first(self, kind: str) -> npt.NDArray[np.int64]:
        """(N) The first touch of each arrival that is of this kind, -1 where there is none."""
        touch = np.flatnonzero(self.kind[self.entity] == KIND_CODES[kind])[::-1]
        found = np.full(len(self.arrivals), -1, np.int64)
        found[np.searchsorted(self.start, touch, "right") - 1] = touch  # of several the one that is assigned last
        return found


def columns(arrivals: Sequence[Arrival], watched: Iterable[str] = (), erasures: Erasures = NO_ERASURES) -> Touches:
    """The columns of a batch; the order of `arrivals` is the order in which they are folded.

    `watched` entities are read with the batch though nothing in it need touch them. What `erasures` cover of a user is
    skipped by that user's own slices alone: what the event tells of its device, card, items or seller stays told.
    """
    touches = [touches_of(arrival.event) for arrival in arrivals]
    names, amounts = [entity for own in touches for entity, _ in own], [amount for own in touches for _, amount in own]
    index = {entity: number for number, entity in enumerate(dict.fromkeys(chain(names, watched)))}
    families = {source: family_of(source) for source in {arrival.source for arrival in arrivals}}
    head = np.array([head_of(arrival, families[arrival.source]) for arrival in arrivals], np.int64).reshape(-1, 6)
    touched = np.array([index[entity] for entity in names], np.int64)
    start = np.cumsum([0, *map(len, touches)], dtype=np.int64)
    digested = digests(index)
    ts_ms = np.repeat(head[:, 0], np.diff(start))
    return Touches(
        arrivals=arrivals,
        index=index,
        entities=list(index),
        kind=np.array([KIND_CODES.get(entity[: entity.find(":")], -1) for entity in index], np.int64),
        ident=np.maximum(digested >> 1, 1),
        bucket=buckets_of(digested),
        start=start,
        entity=touched,
        amount=np.array(amounts, np.int64),
        head=head,
        kept=ts_ms > until_ms(index, erasures)[touched],
        gone=erasures.gone(),
    )


def until_ms(index: dict[str, int], erasures: Erasures) -> npt.NDArray[np.int64]:
    """(E) Up to which time an erasure covers what touches each entity; -1: none does."""
    found = np.full(len(index), -1, np.int64)
    for entity in index.keys() & erasures.until_ms.keys():
        found[index[entity]] = erasures.until_ms[entity]
    return found


Head: TypeAlias = tuple[int, int, int, int, int, int]


def head_of(arrival: Arrival, family: int) -> Head:
    """What every touch of an arrival has in common: a row of `Touches.head`."""
    event = arrival.event
    if isinstance(event, Order):
        return event.ts_ms, arrival.offset, family, hash_id(event.event_id), -1, 0
    return event.ts_ms, arrival.offset, family, 0, *verdict(event)


def family_of(source: str) -> int:
    """The code of a source's family; -1: none that profiles know."""
    return FAMILY_CODES.get(source_family(source), -1)


def verdict(event: Event) -> tuple[int, int]:
    """Which judged task an event speaks of (-1: none that profiles count) and 1 for bad, 0 for good."""
    if not isinstance(event, Judgement) or isinstance(event.value, str):
        return -1, 0
    return TASK_CODES.get(event.task, -1), int(event.value > 0)


def user_of(event: Event) -> str:
    """The user entity of an event, or an empty string for events without a user."""
    return f"user:{event.user_id}" if isinstance(event, UserEvent) else ""
