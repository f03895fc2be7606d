"""Streams of events that might make profiles grow, for the memory bench."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from bench.performance.load.synthetic_shop import PARTITIONS, START_MS, TOPIC_ID
from contract.events.model import Click, Judgement, Line, Order, clamp
from contract.profiles.entity_kinds import LINKED_KINDS
from contract.profiles.entity_updates import Arrival
from contract.profiles.record import FAMILIES
from contract.units import DAY_MS

NEW_PER_ORDER: Final = 6  # a user, a device, an address, a card, an item and a seller
ENTITIES_PER_JUDGEMENT: Final = 50
YEAR_MS: Final = 365 * DAY_MS
WARMUP_USERS: Final = 1_000
WARMUP_SOURCE: Final = f"judgements~{TOPIC_ID}/99"


def list_sources(kind: str) -> list[str]:
    """Every source that an entity of this kind may have a slice of; a user has one partition of each topic."""
    if kind == "user":
        return [f"{family}~{TOPIC_ID}/0" for family in FAMILIES]
    touching = [family for family, kinds in LINKED_KINDS.items() if kind in kinds]
    return [f"{family}~{TOPIC_ID}/{n}" for family in (*touching, "judgements") for n in range(PARTITIONS)]


def generate_judgements(kind: str, count: int, sources: Sequence[str]) -> Iterator[Arrival]:
    """Updates of `count` entities of a single kind in each source, as judgements: these may name any entities.

    The family of a source determines the meaning of its slices, not their size.
    """
    for source in sources:
        for offset, first in enumerate(range(0, count, ENTITIES_PER_JUDGEMENT)):
            entities = tuple(f"{kind}:{100_000 + n}" for n in range(first, min(count, first + ENTITIES_PER_JUDGEMENT)))
            yield Arrival(source, offset, make_judgement(entities))


def make_judgement(entities: tuple[str, ...]) -> Judgement:
    return Judgement(
        event_id="j", ts_ms=START_MS, user_id="u", judged_event_id="o", task="fraud", value=1.0, entities=entities
    )


def make_warmup() -> list[Arrival]:
    """Users in every bucket, with one slice each."""
    return [Arrival(WARMUP_SOURCE, 0, make_judgement(tuple(f"user:warm{n}" for n in range(WARMUP_USERS))))]


def generate_new_ids(ids: int) -> Iterator[Arrival]:
    """Orders whose ids are all new, at least `ids` of them in total."""
    for n in range(-(-ids // NEW_PER_ORDER)):
        ip = f"2001:db8:{n >> 16:x}:{n & 0xFFFF:x}::1"  # networks of /64, which are one entity each
        line = Line(item_id=f"i{n}", quantity=1, unit_price=9.99, seller_id=f"s{n}")
        order = Order(
            event_id=f"o{n}",
            ts_ms=START_MS + n,
            user_id=f"u{n}",
            lines=(line,),
            amount=9.99,
            currency="EUR",
            payment_method="card",
            card_id=f"c{n}",
            device_id=f"d{n}",
            ip=ip,
        )
        yield Arrival(f"orders~{TOPIC_ID}/{n % PARTITIONS}", n // PARTITIONS, order)


def generate_clicks(count: int, clicks: int) -> Iterator[Arrival]:
    """Clicks of `count` users, as many of each, on few items."""
    for n in range(count * clicks):
        user, item = f"u{100_000 + n % count}", f"i{n % 20}"
        yield Arrival(
            f"clicks~{TOPIC_ID}/0", n, Click(event_id=f"e{n}", ts_ms=START_MS + n, user_id=user, item_id=item)
        )


def move_to_future(arrivals: Iterable[Arrival], *, clamped: bool = True) -> Iterator[Arrival]:
    """Move every second event a year into the future; `clamped`: as decoding clamps it."""
    for number, arrival in enumerate(arrivals):
        if number % 2:
            event = msgspec.structs.replace(arrival.event, ts_ms=arrival.event.ts_ms + YEAR_MS)
            arrival = arrival._replace(event=clamp(event, arrival.event.ts_ms)[0] if clamped else event)
        yield arrival


def mix_case(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    """Put device and card of every second event into upper case; for the fold these are other entities."""
    for number, arrival in enumerate(arrivals):
        event: Any = arrival.event
        if number % 2:
            changed: Mapping[str, str] = {name: getattr(event, name).upper() for name in ("device_id", "card_id")}
            arrival = arrival._replace(event=msgspec.structs.replace(event, **changed))
        yield arrival
