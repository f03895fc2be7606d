"""Input events: one frozen struct for each kind of record, within stated bounds. `contract.events.reading` reads them.

Unknown fields are ignored and missing optional ones have defaults, so that producers can be upgraded first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, defstruct
from msgspec.structs import astuple, force_setattr, replace

from contract.errors import BadEvent
from contract.events.guests import GuestId
from contract.hashing import digest_all
from contract.units import MINUTE_MS

RECORD_BYTES_MAX: Final = 256 * 1024
TEXT_CHARS_MAX: Final = 512
LIST_ITEMS_MAX: Final = 2_000
ATTRIBUTES_MAX: Final = 256
AHEAD_MS_MAX: Final = 5 * MINUTE_MS
NUMBER_TYPES: Final = (int, float)
WHOLE_MAX: Final = 2**53  # a greater whole number is not exact in JSON
LARGE_MAX: Final = 10**300
TS_MS_MAX: Final = 4_102_444_800_000  # 2100-01-01: seconds of a later time would not fit the 32 bits of a profile

REASONS: Final = {
    "empty": "the record has no value",
    "too_large": "the record is over 256 KiB",
    "not_utf8": "the bytes of the record, or of a required field, are not UTF-8",
    "not_json": "the text is not one JSON document",
    "too_deep": "the document is nested deeper than 500 levels",
    "bad_schema": "the record is not data of its schema in the registry, or the registry lacks the schema",
    "missing_field": "a required field is absent",
    "wrong_type": "a field has another type than agreed",
    "bad_id": "a required id is empty or longer than 128 characters",
    "placeholder_id": "a required id is a placeholder, such as `null` or `0`",
    "bad_label": "a label's task is not declared, or its value is none of the task's kind",
    "too_long": "a list or a word is longer than its bound, or a list is empty where an entry is needed",
    "out_of_range": "a number is outside its bounds, or not finite",
    "bad_time": "the time lies after 2099, even by the record's own Kafka timestamp, or in a unit that is refused",
    "cannot_score": "the event was folded, but no answer could be computed for it",
    "too_large_to_keep": "the dead letter or the decision is larger than its topic takes; its value is cut",
}

Id: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Ip: TypeAlias = Annotated[str, Meta(max_length=512)]  # lists of addresses are read too
Word: TypeAlias = Annotated[str, Meta(max_length=128)]
Money: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]
# Whole numbers stay `int`, as they are in digests of content.
Quantity: TypeAlias = Annotated[int, Meta(ge=1, le=10_000_000)] | Annotated[float, Meta(gt=0, le=1e7)]
Millis: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Ids: TypeAlias = Annotated[tuple[Id, ...], Meta(max_length=LIST_ITEMS_MAX)]
# A shop's own fields: numbers, texts, true or false, lists of numbers. Decoded without these types, since a value of
# another one should be absent and leave the others; see `contract.attributes`.
Attributes: TypeAlias = Annotated[dict[str, Any], Meta(max_length=ATTRIBUTES_MAX)]
Surface: TypeAlias = Literal["home", "search", "category", "product", "cart"]
Platform: TypeAlias = Literal["web", "app", "partner"]


def truncate(struct: Struct, *fields: str) -> None:
    """Shorten text to its bound while the struct is being built; a long text is no reason to reject an event."""
    for field in fields:
        text = getattr(struct, field)
        if text is not None and len(text) > TEXT_CHARS_MAX:
            force_setattr(struct, field, text[:TEXT_CHARS_MAX])


def limit_attributes(struct: "UserEvent | Product") -> None:
    """Shorten long texts and lists, and empty what is no attribute, so that every value can be stored and sent."""
    attributes = struct.attributes or {}
    for name, value in attributes.items():
        if not isinstance(value, NUMBER_TYPES) or not -WHOLE_MAX <= value <= WHOLE_MAX:
            attributes[name] = limit_attribute(value)


def limit_attribute(value: object) -> object:
    """The value within its bounds; an empty list, which no feature reads, for one of another type."""
    match value:
        case float():
            return value if math.isfinite(value) else []
        case None:
            return None
        case int():
            return float(value) if -LARGE_MAX <= value <= LARGE_MAX else []
        case str():
            return value[:TEXT_CHARS_MAX]
        case list() | tuple() if all(isinstance(element, NUMBER_TYPES) for element in value):
            elements = [limit_attribute(element) for element in value[:LIST_ITEMS_MAX]]
            return [] if [] in elements else elements
    return []


class Event(Struct, frozen=True, gc=False, kw_only=True):
    """The fields of every event: an id and the event time in epoch milliseconds, UTC."""

    event_id: Id
    ts_ms: Millis


class UserEvent(Event, frozen=True, gc=False, kw_only=True):
    """An event of one user, keyed by the user on its topic; the id is empty if the record's is a placeholder.

    `guest_id`: who acted before the login, see `contract.events.guests`. Without a user the event is the guest's.
    """

    user_id: Id
    attributes: Attributes | None = None
    guest_id: GuestId | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)


class Click(UserEvent, frozen=True, gc=False, kw_only=True):
    """A user opened an item; `recommendation_id` names the list that it was clicked in."""

    item_id: Id
    session_id: Id | None = None
    surface: Surface | None = None
    platform: Platform | None = None
    query: str | None = None
    rank: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    recommendation_id: Id | None = None
    device_id: Id | None = None
    ip: Ip | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)
        if self.query:
            truncate(self, "query")


class Impression(UserEvent, frozen=True, gc=False, kw_only=True):
    """Items that were shown to a user, in order; `recommendation_id` names the list they come from."""

    items: Ids
    recommendation_id: Id | None = None
    surface: Surface | None = None
    query: str | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)
        if self.query:
            truncate(self, "query")


class Line(Struct, frozen=True, gc=False, kw_only=True):
    """One position of an order; `unit_price` in the unit of its amount. The item is empty if it is a placeholder.

    `quantity` may have a fraction, as of goods that are sold by weight.
    """

    item_id: Id
    quantity: Quantity
    unit_price: Money
    seller_id: Id | None = None


class Order(UserEvent, frozen=True, gc=False, kw_only=True):
    """A purchase, which is answered by a decision."""

    lines: Annotated[tuple[Line, ...], Meta(min_length=1, max_length=LIST_ITEMS_MAX)]
    amount: Money
    currency: Word
    payment_method: Word
    card_id: Id | None = None
    device_id: Id | None = None
    ip: Ip | None = None
    shipping_country: Word | None = None
    billing_country: Word | None = None
    account_created_ms: Millis | None = None
    platform: Platform | None = None


class Review(UserEvent, frozen=True, gc=False, kw_only=True):
    """A user's opinion of an item, 0 to 5 stars."""

    item_id: Id
    rating: Annotated[float, Meta(ge=0, le=5)]
    text: str | None = None
    order_id: Id | None = None
    seller_id: Id | None = None
    device_id: Id | None = None
    ip: Ip | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)
        if self.text:
            truncate(self, "text")


class Search(UserEvent, frozen=True, gc=False, kw_only=True):
    """A query, with the search engine's result to re-rank; without `items` it gets no answer yet."""

    query: str
    items: Ids | None = None
    session_id: Id | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)
        if self.query:
            truncate(self, "query")


class Product(Event, frozen=True, gc=False, kw_only=True):
    """The present state of a catalogue item; keyed by `item_id`, the newest record counts."""

    item_id: Id
    title: str
    price: Money
    currency: Word
    available: bool
    description: str | None = None
    brand: Word | None = None
    category: Word | None = None
    stock: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    seller_id: Id | None = None
    attributes: Attributes | None = None
    vector: Annotated[tuple[float, ...], Meta(max_length=LIST_ITEMS_MAX)] | None = None

    def __post_init__(self) -> None:
        if self.attributes:
            limit_attributes(self)
        truncate(self, "title", "description")


class Label(UserEvent, frozen=True, gc=False, kw_only=True):
    """The true outcome of an earlier event: `value` is 0 or 1, a grade, or a class. `ts_ms` is the label's arrival."""

    judged_event_id: Id
    task: Word
    value: float | Word


class Judgement(Label, frozen=True, gc=False, kw_only=True):
    """A label with the entities (`kind:id`) of the event it judges, written by the joiner; the form that is folded."""

    entities: Annotated[tuple[str, ...], Meta(max_length=LIST_ITEMS_MAX * 2 + 8)]


class Erasure(UserEvent, frozen=True, gc=False, kw_only=True):
    """A request to erase this user's events up to `ts_ms`."""


KINDS: Final[Mapping[str, type[Event]]] = {
    "clicks": Click,
    "impressions": Impression,
    "orders": Order,
    "reviews": Review,
    "searches": Search,
    "products": Product,
    "labels": Label,
    "judgements": Judgement,
    "erasures": Erasure,
}
IDENTITY_FIELDS: Final = Event.__struct_fields__  # the first of every event
KIND_BY_TYPE: Final = {struct: kind for kind, struct in KINDS.items()}
DELETABLE_KINDS: Final = frozenset({"products"})  # a key without a value is a tombstone there, which deletes
DIGEST_BYTES: Final = 12
to_msgpack: Final = msgspec.msgpack.Encoder().encode


def digest_content(event: Event) -> str:
    """A digest of an event's fields except its id and time: a producer that sends an event again may change its time.

    Absent fields do not count, so that a release with a further optional field computes the same.
    """
    return digest_contents([event])[0]


def digest_contents(events: Sequence[Event]) -> list[str]:
    """`digest_content` of each of these events, which are of one type."""
    build = build_content_type(type(events[0])) if events else None
    contents = [build(*astuple(event)[len(IDENTITY_FIELDS) :]) for event in events] if build else []
    for content in contents:
        if getattr(content, "attributes", None) is not None:
            content.attributes = to_comparable(content.attributes) or None
    return digest_all(map(to_msgpack, contents), DIGEST_BYTES)


@cache  # every order has a digest
def build_content_type(struct: type[Event]) -> Callable[..., Any]:
    """The struct of what an event is about: its fields but the first, of which absent ones are not encoded."""
    fields = [(name, Any, None) for name in struct.__struct_fields__[len(IDENTITY_FIELDS) :]]
    return defstruct(f"{struct.__name__}Content", fields, omit_defaults=True, gc=False)


def to_comparable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes in one order, without absent ones; whole numbers as floats, since producers write both."""
    return {name: to_floats(value) for name, value in sorted(attributes.items()) if value is not None}


def to_floats(value: Any) -> Any:
    if isinstance(value, list):
        return [to_floats(element) for element in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def clamp(event: Event, kafka_ms: int) -> tuple[Event, bool]:
    """The event with a time at most 5 minutes ahead of its record's Kafka timestamp, and whether it was changed.

    The reference is the record's timestamp, not the clock of this machine, so that a replay gives the same result.
    """
    is_clamped = kafka_ms >= 0 and event.ts_ms > kafka_ms + AHEAD_MS_MAX
    if is_clamped:
        event = replace(event, ts_ms=kafka_ms)
    if event.ts_ms > TS_MS_MAX:
        raise BadEvent("bad_time", f"An event should lie before 2100. Found ts_ms = {event.ts_ms}.")
    return event, is_clamped
