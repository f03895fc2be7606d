"""Column encoders: how the source of a declared feature becomes numbers or ids of a block.

Numbers that are not known are NaN, ids that are not known are 0. `contract.features.declaration` calls these for each
feature of a group; they know sources and kinds, not declarations. `contract.attributes` says what an attribute of each
kind is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from contract import attributes
from contract.attributes import NUMBERS, PREFIX, Absence, find_absence, is_attribute, read_attribute
from contract.events.codes import COUNTRY_CODES
from contract.events.model import KINDS, Event, Order
from contract.hashing import hash_id
from contract.profiles.record import AGGREGATE_COLUMNS, RING_SIZE
from contract.units import DAY_MS, HOUR_MS

T = TypeVar("T")
ENCODING_VERSION: Final = 1  # increment when a change below gives the same declaration other values
WIDTHS: Final = {"number": 1, "category": 1, "sequence": RING_SIZE, "text": 32}
WORD: Final = re.compile(r"[^\W_]+")
QUERY_TEXT: Final = ("query.text", "text")
NUMBERS_OR_ABSENT: Final = frozenset((*NUMBERS, type(None)))
VECTOR_FIELDS: Final = ("vector",)
EVENT_FIELDS: Final = frozenset(
    field for struct in KINDS.values() for field in struct.__struct_fields__ if field != "attributes"
)
# Called with the name of an attribute, why it is absent, and in how many events.
CountAbsent: TypeAlias = Callable[[str, Absence, int], None]


def ignore_absent(name: str, reason: Absence, events: int) -> None:
    """Counts nothing."""


@dataclass(frozen=True, slots=True)
class ProfileAggregates:
    """What profiles knew about each of N events, by entity kind: aggregates (N, AGGREGATES), recent ids (N, RING)."""

    aggregates: Mapping[str, npt.NDArray[np.float64]]
    recent_ids: Mapping[str, npt.NDArray[np.uint64]]


def total_quantity(event: Event) -> float:
    return float(sum([line.quantity for line in event.lines])) if isinstance(event, Order) else np.nan


def account_age_s(event: Event) -> float:
    created = getattr(event, "account_created_ms", None)
    return np.nan if created is None else (event.ts_ms - created) / 1000.0


def is_abroad(event: Event) -> float:
    shipping, billing = getattr(event, "shipping_country", None), getattr(event, "billing_country", None)
    if shipping is None or billing is None:
        return np.nan
    if shipping == billing:
        return 0.0
    if (shipping in COUNTRY_CODES) != (billing in COUNTRY_CODES):
        return np.nan  # a code and a name, or a code of no country: both may be of one country
    return float(shipping.casefold() != billing.casefold())


# Sources `event.NAME` that are computed from an event's fields.
DERIVED: Final[Mapping[str, Callable[[Event], float]]] = {
    "lines_count": lambda event: float(len(event.lines)) if isinstance(event, Order) else np.nan,
    "quantity": total_quantity,
    "account_age_s": account_age_s,
    "abroad": is_abroad,
    "hour": lambda event: float(event.ts_ms // HOUR_MS % 24),
    "weekday": lambda event: float(event.ts_ms // DAY_MS % 7),
}


def encode_number(
    source: str,
    events: Sequence[Event],
    aggregates: ProfileAggregates,
    numbers: npt.NDArray[np.float32],
    columns: Mapping[str, int],
    count_absent: CountAbsent = ignore_absent,
) -> npt.NDArray[np.floating] | list[float]:
    """One number for each event; `numbers` has the group's columns so far, which ratios find by name in `columns`."""
    if source.startswith("ratio "):
        top, bottom = (numbers[:, columns[name]] for name in source.removeprefix("ratio ").split(" / "))
        return np.divide(top, bottom, out=np.full(len(top), np.nan, np.float32), where=bottom > 0)
    prefix, _, rest = source.partition(".")
    if prefix == "profile":
        kind, _, aggregate = rest.partition(".")
        if kind not in aggregates.aggregates:  # a list is made after the batch, for a user without the event's others
            return np.full(len(events), np.nan)
        return aggregates.aggregates[kind][:, AGGREGATE_COLUMNS[aggregate]]
    if prefix == "column":
        return np.full(len(events), np.nan)
    if is_attribute(rest):
        values = read_attributes(rest, events, attributes.to_number, count_absent)
        return [np.nan if value is None else value for value in values]
    if rest in DERIVED:
        return [DERIVED[rest](event) for event in events]
    return to_numbers([getattr(event, rest, None) for event in events])


def to_numbers(values: Sequence[object]) -> npt.NDArray[np.float64] | list[float]:
    """`to_number` of each value; NumPy does the same where all are numbers or absent, as in most fields."""
    if set(map(type, values)) <= NUMBERS_OR_ABSENT:
        return np.array(values, np.float64)
    return [to_number(value) for value in values]


def to_number(value: object) -> float:
    return float(value) if isinstance(value, NUMBERS) else np.nan


def read_attributes(
    field: str, events: Sequence[Event], convert: Callable[[Any], T | None], count_absent: CountAbsent
) -> list[T | None]:
    """The attribute of each event, converted; None and counted where it is missing or of another type."""
    name = field.removeprefix(PREFIX)
    values = [read_attribute(event, name) for event in events]
    converted = [None if value is None else convert(value) for value in values]
    absences = [find_absence(value) for value, read in zip(values, converted, strict=True) if read is None]
    for reason in dict.fromkeys(absences):
        count_absent(name, reason, absences.count(reason))
    return converted


def encode_vector(
    source: str, size: int, events: Sequence[Event], count_absent: CountAbsent = ignore_absent
) -> npt.NDArray[np.float32]:
    """The numbers (N, size) of a vector; NaN where it is absent or of another length, so from another embedder."""
    vectors = np.full((len(events), size), np.nan, np.float32)
    field = source.partition(".")[2]
    if is_attribute(field):
        for row, vector in enumerate(
            read_attributes(field, events, lambda value: attributes.to_vector(value, size), count_absent)
        ):
            if vector is not None:
                vectors[row] = vector
        return vectors
    for row, event in enumerate(events):
        value = getattr(event, field, None)
        if isinstance(value, tuple) and len(value) == size:
            vectors[row] = value
    return vectors


def encode_ids(
    kind: str,
    source: str,
    events: Sequence[Event],
    aggregates: ProfileAggregates,
    count_absent: CountAbsent = ignore_absent,
) -> npt.NDArray[np.int64]:
    """The ids (N, width) of a category, sequence or text."""
    prefix, _, rest = source.partition(".")
    if prefix == "column":
        return np.zeros((len(events), WIDTHS[kind]), np.int64)
    if kind == "sequence":
        recent_ids = aggregates.recent_ids.get(rest.partition(".")[0])
        return np.zeros((len(events), WIDTHS[kind]), np.int64) if recent_ids is None else recent_ids.astype(np.int64)
    field = "query" if source == "query.text" else rest
    values: Sequence[object] = (
        read_attributes(field, events, attributes.to_text if kind == "text" else attributes.to_category, count_absent)
        if is_attribute(field)
        else [getattr(event, field, None) for event in events]
    )
    if kind == "text":
        rows = [encode_text(str(value or "")) for value in values]
        return np.array(rows, np.int64).reshape(len(events), WIDTHS[kind])
    texts = [None if value is None else str(value) for value in values]
    ids = {text: 0 if text is None else category_id(source, text) for text in set(texts)}  # few distinct, many rows
    return np.array([ids[text] for text in texts], np.int64).reshape(-1, 1)


def category_id(source: str, text: str) -> int:
    """The id of a category that a source names by this text."""
    return hash_id(f"{source.partition('.')[2]}={text}")


@lru_cache(maxsize=4_096)  # for frequent searches; titles hardly repeat
def encode_text(text: str) -> tuple[int, ...]:
    """Hashed words and character trigrams of a text, words first, up to the width; 0 fills the rest."""
    words = [hash_word(word) for word in WORD.findall(text.lower())]
    grams = dict.fromkeys(chain((word_hash for word_hash, _ in words), *(trigrams for _, trigrams in words)))
    ids = list(islice(grams, WIDTHS["text"]))
    return tuple(ids + [0] * (WIDTHS["text"] - len(ids)))


@lru_cache(maxsize=65_536)  # a million titles have far fewer distinct words
def hash_word(word: str) -> tuple[int, tuple[int, ...]]:
    """A word's own id, and those of its trigrams."""
    padded = f"_{word}_"
    return hash_id(f"w{word}"), tuple(hash_id(f"c{padded[i : i + 3]}") for i in range(len(padded) - 2))
