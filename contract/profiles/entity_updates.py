"""Which entities an event updates, by what amount and with which links: events become the columns that a fold reads.

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

An entity is linked only with others of the same event: `EntityKinds.link_slots` is this table for the fold. An order
updates its user, device, ip and card by its amount, and an item or a seller by the total of their own lines, at most a
billion, since sums are 64 bits wide. Declared entities come last, with the amount of the user.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.events.addresses import to_address_entity
from contract.events.model import Click, Event, Impression, Judgement, Order, Review, Search, UserEvent
from contract.hashing import buckets_of, hash_id, hash_texts
from contract.profiles.entity_kinds import BUILT_IN_KINDS, FAMILY_CODES, EntityKinds
from contract.profiles.erasures import NO_ERASURES, ErasedIds, Erasures
from contract.profiles.logins import LoginWrite, list_logins
from contract.profiles.record import JUDGED_TASKS, source_family

TASK_CODES: Final = {task: code for code, task in enumerate(JUDGED_TASKS)}
LINES_TOTAL_MAX: Final = 10**11
LINKED_MAX: Final = 5  # a user may link with all entities of an event, others only with its first five


class Arrival(NamedTuple):
    """A decoded event and its position in the log; `source` is its topic's kind and partition (`orders/3`)."""

    source: str
    offset: int
    event: Event
    topic: str = ""
    partition: int = 0


EntityUpdate: TypeAlias = tuple[str, int]  # an entity (`kind:id`) and the amount by which an event updates it


def to_minor_units(money: float) -> int:
    """Money in hundredths of its unit: sums of integers do not depend on their order."""
    return round(money * 100)


def extract_user_update(event: UserEvent, amount: int) -> list[EntityUpdate]:
    """The user's update; none for a guest, who has no profile: all guests would share it."""
    return [(f"user:{event.user_id}", amount)] if event.user_id else []


def extract_order_updates(order: Order) -> list[EntityUpdate]:
    amount = to_minor_units(order.amount)
    updates = [(f"user:{order.user_id}", amount)] if order.user_id else []  # as for clicks: without calls
    if order.device_id:
        updates.append((f"device:{order.device_id}", amount))
    if order.ip:
        updates.append((f"ip:{to_address_entity(order.ip)}", amount))
    if order.card_id:
        updates.append((f"card:{order.card_id}", amount))
    items: dict[str, int] = {}
    sellers: dict[str, int] = {}
    for line in order.lines:
        total = to_minor_units(line.unit_price * line.quantity)
        if line.item_id:
            items[line.item_id] = items.get(line.item_id, 0) + total
        if line.seller_id:
            sellers[line.seller_id] = sellers.get(line.seller_id, 0) + total
    for kind, totals in (("item", items), ("seller", sellers)):
        for item_or_seller_id, total in totals.items():
            updates.append((f"{kind}:{item_or_seller_id}", total if total < LINES_TOTAL_MAX else LINES_TOTAL_MAX))
    return updates


def extract_click_updates(click: Click) -> list[EntityUpdate]:
    updates = [(f"user:{click.user_id}", 0)] if click.user_id else []  # most events are clicks: without calls
    updates.append((f"item:{click.item_id}", 0))
    if click.device_id:
        updates.append((f"device:{click.device_id}", 0))
    if click.ip:
        updates.append((f"ip:{to_address_entity(click.ip)}", 0))
    return updates


def extract_review_updates(review: Review) -> list[EntityUpdate]:
    stars = to_minor_units(review.rating)
    updates = extract_user_update(review, stars)
    updates.append((f"item:{review.item_id}", stars))
    if review.seller_id:
        updates.append((f"seller:{review.seller_id}", stars))
    if review.device_id:
        updates.append((f"device:{review.device_id}", stars))
    if review.ip:
        updates.append((f"ip:{to_address_entity(review.ip)}", stars))
    return updates


def extract_impression_updates(impression: Impression) -> list[EntityUpdate]:
    return extract_user_update(impression, len(impression.items))


def extract_search_updates(search: Search) -> list[EntityUpdate]:
    return extract_user_update(search, 0)


def extract_judgement_updates(judgement: Judgement, kinds: EntityKinds) -> list[EntityUpdate]:
    entities = dict.fromkeys(judgement.entities)
    return [(entity, 0) for entity in entities if entity.partition(":")[0] in kinds.codes]


EXTRACTORS: Final[dict[type[Event], Callable[..., list[EntityUpdate]]]] = {
    Order: extract_order_updates,
    Click: extract_click_updates,
    Review: extract_review_updates,
    Impression: extract_impression_updates,
    Search: extract_search_updates,
}


def measure_amount(event: Event) -> int:
    """The amount by which an event updates its user, and declared entities."""
    match event:
        case Order():
            return to_minor_units(event.amount)
        case Review():
            return to_minor_units(event.rating)
        case Impression():
            return len(event.items)
    return 0


def extract_updates(event: Event, kinds: EntityKinds = BUILT_IN_KINDS) -> list[EntityUpdate]:
    """Every entity that `event` updates, once each, the user first if there is one; none if it is not folded."""
    extract = EXTRACTORS.get(type(event))
    if extract is None:
        return extract_judgement_updates(event, kinds) if isinstance(event, Judgement) else []
    updates = extract(event)
    if kinds.declared:
        amount = measure_amount(event)
        updates += [(entity, amount) for entity in kinds.extract(event)]
    return updates


@dataclass(slots=True)
class UpdateBatch:
    """A batch as columns: N arrivals in batch order, T updates arrival by arrival, E entities."""

    arrivals: Sequence[Arrival]
    kinds: EntityKinds
    index: dict[str, int]  # entity -> its number, in order of first update
    entities: list[str]  # the same by number
    kind: npt.NDArray[np.int64]  # (E) code of the entity's kind
    id_hash: npt.NDArray[np.uint64]  # (E) `hash_id` of the entity, by which links name it
    bucket: npt.NDArray[np.int64]  # (E) `bucket_of` the entity
    start: npt.NDArray[np.int64]  # (N+1) first update of each arrival
    entity: npt.NDArray[np.int64]  # (T) index into `entities`
    amount: npt.NDArray[np.int64]  # (T)
    event_columns: npt.NDArray[np.int64]  # (N, 6); see `encode_event`
    is_folded: npt.NDArray[np.bool_]  # (T) False: an erasure covers it; the entity is linked with, but not folded
    erased_ids: ErasedIds  # left out where links are read
    erased_until_s: npt.NDArray[np.int64]  # (E) up to which links with a user are masked; or -1
    logins: Sequence[LoginWrite] = ()

    def find_first(self, kind: str) -> npt.NDArray[np.int64]:
        """(N) The first update of an entity of this kind by each arrival, -1 where there is none."""
        rows = np.flatnonzero(self.kind[self.entity] == self.kinds.codes[kind])[::-1]
        first = np.full(len(self.arrivals), -1, np.int64)
        first[np.searchsorted(self.start, rows, "right") - 1] = rows  # of several the first, since it is assigned last
        return first


def to_updates(
    arrivals: Sequence[Arrival],
    extra_entities: Iterable[str] = (),
    erasures: Erasures = NO_ERASURES,
    kinds: EntityKinds = BUILT_IN_KINDS,
) -> UpdateBatch:
    """The columns of a batch; `arrivals` are folded in their order.

    `extra_entities` are read with the batch even if no event updates them. An erased event is skipped only for its
    user's own slices: it still counts for its device, card, items and sellers, which are linked with a masked id.
    """
    updates = [extract_updates(arrival.event, kinds) for arrival in arrivals]
    names = [entity for event_updates in updates for entity, _ in event_updates]
    amounts = [amount for event_updates in updates for _, amount in event_updates]
    entities = list(dict.fromkeys(chain(names, extra_entities)))
    index = dict(zip(entities, range(len(entities)), strict=True))
    family_codes = {source: family_code(source) for source in {arrival.source for arrival in arrivals}}
    columns = chain.from_iterable([encode_event(arrival, family_codes[arrival.source]) for arrival in arrivals])
    event_columns = np.fromiter(columns, np.int64, 6 * len(arrivals)).reshape(-1, 6)
    entity_numbers = np.fromiter(map(index.__getitem__, names), np.int64, len(names))
    start = np.cumsum([0, *map(len, updates)], dtype=np.int64)
    hashes = hash_texts(entities)
    ts_ms = np.repeat(event_columns[:, 0], np.diff(start))
    cutoffs_ms = find_cutoffs_ms(index, erasures)
    return UpdateBatch(
        arrivals=arrivals,
        kinds=kinds,
        index=index,
        entities=entities,
        kind=np.array([kinds.codes.get(entity.split(":", 1)[0], -1) for entity in entities], np.int64),
        id_hash=np.maximum(hashes >> 1, 1),
        bucket=buckets_of(hashes),
        start=start,
        entity=entity_numbers,
        amount=np.fromiter(amounts, np.int64, len(amounts)),
        event_columns=event_columns,
        is_folded=ts_ms > cutoffs_ms[entity_numbers],
        erased_ids=erasures.to_erased_ids(),
        erased_until_s=cutoffs_ms // 1000,
        logins=[
            login
            for arrival in arrivals
            if getattr(arrival.event, "guest_id", None) is not None
            for login in list_logins(arrival.event, arrival.source, arrival.offset, erasures)
        ],
    )


def find_cutoffs_ms(index: dict[str, int], erasures: Erasures) -> npt.NDArray[np.int64]:
    """(E) The time up to which an erasure covers each entity; -1: none does."""
    cutoffs_ms = np.full(len(index), -1, np.int64)
    for entity in index.keys() & erasures.until_ms.keys():
        cutoffs_ms[index[entity]] = erasures.until_ms[entity]
    return cutoffs_ms


EventColumns: TypeAlias = tuple[int, int, int, int, int, int]


def encode_event(arrival: Arrival, family: int) -> EventColumns:
    """A row of `event_columns`: ts_ms, offset, family, hash of an order's id, judged task or -1, verdict."""
    event = arrival.event
    if isinstance(event, Order):
        return event.ts_ms, arrival.offset, family, hash_id(event.event_id), -1, 0
    return event.ts_ms, arrival.offset, family, 0, *encode_judgement(event)


def family_code(source: str) -> int:
    """The code of a source's family; -1: one without profiles."""
    return FAMILY_CODES.get(source_family(source), -1)


def encode_judgement(event: Event) -> tuple[int, int]:
    """The judged task of an event (-1: none that profiles count) and its verdict: 1 if bad, 0 if good."""
    if not isinstance(event, Judgement) or isinstance(event.value, str):
        return -1, 0
    return TASK_CODES.get(event.task, -1), int(event.value > 0)
