"""Sources of features: every name that exists, what kinds of feature it serves, and what it means.

`contract.features.columns` reads them; `docs/reference/features.md` lists them.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

from contract.attributes import is_attribute
from contract.events.model import Click, Event, Impression, Order, Product, Review, Search
from contract.features.columns import DERIVED, EVENT_FIELDS, QUERY_TEXT, VECTOR_FIELDS
from contract.profiles.record import AGGREGATE_COLUMNS, AGGREGATES, ENTITY_KINDS

FOLDED_EVENTS: Final[Mapping[str, type[Event]]] = {
    "clicks": Click,
    "impressions": Impression,
    "orders": Order,
    "reviews": Review,
    "searches": Search,
}
NEAREST_SHARE: Final = 0.6  # least likeness of a name that is suggested


class Source(NamedTuple):
    """A source: the kinds of feature that it serves, and the kinds of events that have it."""

    name: str
    kinds: tuple[str, ...]
    events: tuple[str, ...]


def is_known_source(kind: str, source: str, *, is_declared: bool = False) -> bool:
    """Whether a feature of this kind can be read from a source; `is_declared`: of a profile that the shop declares."""
    prefix, _, rest = source.partition(".")
    if prefix == "profile":
        entity_kind, _, aggregate = rest.partition(".")
        aggregate_is_known = {"sequence": aggregate == "recent", "number": aggregate in AGGREGATE_COLUMNS}
        return (is_declared or entity_kind in ENTITY_KINDS) and aggregate_is_known.get(kind, False)
    if prefix == "column":
        return bool(rest)
    if kind == "sequence":
        return False
    if prefix in ("event", "item") and is_attribute(rest):
        return True
    if kind == "vector" and rest not in VECTOR_FIELDS:
        return False
    if prefix == "event":
        return rest in EVENT_FIELDS or (rest in DERIVED and kind == "number")
    return (prefix == "item" and rest in ITEM_FIELDS) or (source, kind) == QUERY_TEXT


def list_sources(entity_kinds: tuple[str, ...] = ENTITY_KINDS) -> Iterator[Source]:
    """Every source with a name of its own; attributes and columns of tables have the names that a shop gives them."""
    for field in sorted(EVENT_FIELDS):
        events = tuple(kind for kind, struct in FOLDED_EVENTS.items() if field in struct.__struct_fields__)
        if events and (kinds := kinds_of_field(FOLDED_EVENTS[events[0]], field)):
            yield Source(f"event.{field}", kinds, events)
    for name, events in DERIVED_EVENTS.items():
        yield Source(f"event.{name}", ("number",), events)
    for field in ITEM_FIELDS:
        if kinds := kinds_of_field(Product, field):
            yield Source(f"item.{field}", kinds, ("products",))
    yield Source(QUERY_TEXT[0], (QUERY_TEXT[1],), ("searches",))
    for kind in entity_kinds:
        yield Source(f"profile.{kind}.recent", ("sequence",), ())
        for aggregate in AGGREGATES:
            yield Source(f"profile.{kind}.{aggregate}", ("number",), ())


def kinds_of_field(struct: type[Event], field: str) -> tuple[str, ...]:
    """The kinds of feature that a field of this type serves; none for lists of ids and lines."""
    types = set(unwrap(get_type_hints(struct)[field]))
    if field in VECTOR_FIELDS:
        return ("vector",)
    if types & {float, int, bool}:
        return ("number",)
    return ("category", "text") if types & {str} else ()


def unwrap(annotation: Any) -> Iterator[type]:
    """The plain types of an annotation: members of unions, and the type of a literal's values."""
    if get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from unwrap(member)
    elif all(isinstance(value, str) for value in get_args(annotation)) and get_args(annotation):
        yield str
    elif isinstance(annotation, type):
        yield annotation


def list_text_fields() -> tuple[str, ...]:
    """The fields of folded events that hold a text, which entities may be declared of."""
    names = dict.fromkeys(
        field
        for struct in FOLDED_EVENTS.values()
        for field in struct.__struct_fields__
        if "category" in kinds_of_field(struct, field)
    )
    return tuple(name for name in names if name not in ("event_id", "user_id"))


def describe_nearest_source(kind: str, source: str) -> str:
    """`; the nearest is NAME` if a source of the kind has a similar name, else nothing."""
    names = [known.name for known in list_sources() if kind in known.kinds]
    return describe_nearest(source, [*names, *find_attribute_names(source)])


def find_attribute_names(source: str) -> Iterator[str]:
    """The source with its first two parts as they are for attributes, if they nearly are."""
    prefix, _, rest = source.partition(".")
    field, dot, name = rest.partition(".")
    if dot and prefix != "profile" and difflib.get_close_matches(field, ["attributes"], 1, NEAREST_SHARE):
        yield f"{'item' if prefix == 'item' else 'event'}.attributes.{name}"


def describe_nearest(name: str, known: Iterable[str]) -> str:
    """`; the nearest is NAME` if one of the known names is similar, else nothing."""
    nearest = difflib.get_close_matches(name, list(known), 1, NEAREST_SHARE)
    return f"; the nearest is `{nearest[0]}`" if nearest else ""


ITEM_FIELDS: Final = tuple(field for field in Product.__struct_fields__ if field != "attributes")
DERIVED_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "lines_count": ("orders",),
    "quantity": ("orders",),
    "account_age_s": ("orders",),
    "abroad": ("orders",),
    "hour": tuple(FOLDED_EVENTS),
    "weekday": tuple(FOLDED_EVENTS),
}
