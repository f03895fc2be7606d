"""Features: what is declared in `features.toml`, and the arrays that a model reads.

Values are raw: everything learned from data (means, clipping, vocabularies) and everything defensive lives inside the
exported graph. A feature that is not known is NaN among the numbers and 0 among the ids. Each group of features is a
`Block` of N rows: `numbers` (N, n) float32 and `ids` (N, m) int64, in the order of declaration; a category takes one id
column, a sequence and a text several. A vector takes as many number columns as it is long, behind those of numbers.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from contract.errors import BadConfig
from contract.events import KINDS, LIST_ITEMS_MAX, Event, Order, Product
from contract.hashing import SEED, hash_id
from contract.profiles.record import AGGREGATES, ENTITY_KINDS, RING_SIZE
from contract.units import DAY_MS, HOUR_MS

GROUPS: Final = ("user", "context", "order", "item", "query", "review")
WIDTHS: Final = {"number": 1, "category": 1, "sequence": RING_SIZE, "text": 32}
AGGREGATE_COLUMNS: Final = {name: at for at, name in enumerate(AGGREGATES)}
WORD: Final = re.compile(r"[^\W_]+")

Kind: TypeAlias = Literal["number", "category", "sequence", "text", "vector"]
Group: TypeAlias = Literal["user", "context", "order", "item", "query", "review"]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One declared feature.

    `source` is `event.FIELD` (or one of `DERIVED`), `profile.KIND.AGGREGATE`, `profile.KIND.recent`, `item.FIELD`,
    `query.text`, or `ratio A / B` of two number features declared before it in the same group. `column.NAME` is a
    column of a plain table (`training.data.tabular`): no event has it, so a worker refuses a model that needs it. `size`:
    the length of a vector.
    """

    name: str
    group: Group
    kind: Kind
    source: str
    size: int = 0

    @property
    def width(self) -> int:
        """How many columns of its block it takes."""
        return self.size if self.kind == "vector" else WIDTHS[self.kind]

    @property
    def column(self) -> str | None:
        """The column of a plain table that it is, if it is one."""
        return self.source.removeprefix("column.") if self.source.startswith("column.") else None

    @property
    def digest(self) -> str:
        """Changes whenever the feature's values might: its declaration, width, hash and what its source means."""
        meaning = f"{self.name} {self.group} {self.kind} {self.source} {self.width} {SEED} {ENCODING_VERSION}"
        return f"{hash_id(meaning):016x}"


ENCODING_VERSION: Final = 1  # raised by hand when the code below gives the same declaration other values


class Span(NamedTuple):
    """Where a feature's ids, or a vector's numbers, stand in its block."""

    feature: Feature
    start: int
    width: int


@dataclass(frozen=True, slots=True)
class Block:
    """N rows of one group's features: numbers (N, n) float32, ids (N, m) int64."""

    numbers: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> "Block":
        return Block(self.numbers[rows], self.ids[rows])


@dataclass(frozen=True, slots=True)
class ProfileAggregates:
    """What profiles knew about each of N events, by entity kind: aggregates (N, AGGREGATES), recent ids (N, RING)."""

    aggregates: Mapping[str, npt.NDArray[np.float64]]
    recent_ids: Mapping[str, npt.NDArray[np.uint64]]


class FeatureSet:
    """The declared features in order, and the encoders that fill their blocks."""

    def __init__(self, features: Iterable[Feature]) -> None:
        self.features = tuple(features)
        errors = list(find_mistakes(self.features))
        if errors:
            raise BadConfig(errors)
        self.digests = {feature.name: feature.digest for feature in self.features}

    @property
    def digest(self) -> str:
        """One digest for the whole set in its order: two blocks of equal digest have the same columns."""
        return f"{hash_id(' '.join(self.digests.values())):016x}"

    def numbers(self, group: str) -> tuple[Feature, ...]:
        """The number features of a group, one column each."""
        return tuple(f for f in self.features if f.group == group and f.kind == "number")

    def spans(self, group: str) -> tuple[Span, ...]:
        """The id features of a group and their columns."""
        spans, start = list[Span](), 0
        for feature in self.features:
            if feature.group == group and feature.kind not in ("number", "vector"):
                spans.append(Span(feature, start, feature.width))
                start += feature.width
        return tuple(spans)

    def vectors(self, group: str) -> tuple[Span, ...]:
        """The vectors of a group and their number columns, which stand behind those of `numbers`."""
        spans, start = list[Span](), len(self.numbers(group))
        for feature in self.features:
            if feature.group == group and feature.kind == "vector":
                spans.append(Span(feature, start, feature.width))
                start += feature.width
        return tuple(spans)

    def widths(self, group: str) -> tuple[int, int]:
        """How many number and id columns a group's block has."""
        numbers = len(self.numbers(group)) + sum(span.width for span in self.vectors(group))
        return numbers, sum(span.width for span in self.spans(group))

    def empty_block(self, group: str, rows: int) -> Block:
        """A block in which nothing is known."""
        n, m = self.widths(group)
        return Block(np.full((rows, n), np.nan, np.float32), np.zeros((rows, m), np.int64))

    def encode(self, group: str, events: Sequence[Event], aggregates: ProfileAggregates) -> Block:
        """The block of a group for N events, given what profiles knew before each of them."""
        block = self.empty_block(group, len(events))
        columns: dict[str, int] = {}
        for column, feature in enumerate(self.numbers(group)):
            columns[feature.name] = column
            block.numbers[:, column] = encode_number(feature.source, events, aggregates, block.numbers, columns)
        for span in self.vectors(group):
            block.numbers[:, span.start : span.start + span.width] = encode_vector(span.feature, events)
        for span in self.spans(group):
            block.ids[:, span.start : span.start + span.width] = encode_ids(span.feature, events, aggregates)
        return block

    def select(self, names: Iterable[str]) -> "FeatureSet":
        """Only the named features, in the declared order: the columns that an older or narrower bundle reads."""
        wanted = set(names)
        return FeatureSet(feature for feature in self.features if feature.name in wanted)


def read_features(path: Path) -> FeatureSet:
    """The features declared in a TOML file as `[[features]]`; raises `BadConfig` with every mistake."""
    try:
        table = tomllib.loads(path.read_text())
        return FeatureSet(msgspec.convert(table.get("features", []), list[Feature]))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadConfig([f"{path.name} should declare features. Found: {error}"]) from error


def find_mistakes(features: Sequence[Feature]) -> Iterable[str]:
    """Every reason why these features cannot be served, as sentences."""
    seen: dict[str, Feature] = {}
    for f in features:
        if f.name in seen:
            yield f"Feature names should be unique. Found `{f.name}` twice."
        if f.source.startswith("ratio "):
            names = f.source.removeprefix("ratio ").split(" / ")
            if len(names) != 2 or f.kind != "number":
                yield f"`{f.name}` should be a number, the ratio of two others. Found `{f.source}` ({f.kind})."
            for name in names:
                if name not in seen or seen[name].group != f.group or seen[name].kind != "number":
                    yield f"`{f.name}` should be a ratio of two numbers of its group. Found `{name}` not before it."
        elif not is_known_source(f):
            yield f"`{f.name}` should have a source that exists for its kind. Found `{f.source}` ({f.kind})."
        if (f.kind == "vector") != (0 < f.size <= LIST_ITEMS_MAX):
            yield f"A vector, and no other, should have a size up to {LIST_ITEMS_MAX}. Found {f.size} in `{f.name}`."
        seen[f.name] = f


def is_known_source(feature: Feature) -> bool:
    prefix, _, rest = feature.source.partition(".")
    if prefix == "profile":
        kind, _, aggregate = rest.partition(".")
        aggregate_is_known = {"sequence": aggregate == "recent", "number": aggregate in AGGREGATE_COLUMNS}
        return kind in ENTITY_KINDS and aggregate_is_known.get(feature.kind, False)
    if prefix == "column":
        return bool(rest)
    if feature.kind == "sequence" or (feature.kind == "vector" and rest not in VECTOR_FIELDS):
        return False
    if prefix == "event":
        return rest in EVENT_FIELDS or (rest in DERIVED and feature.kind == "number")
    return (prefix == "item" and rest in Product.__struct_fields__) or (feature.source, feature.kind) == QUERY_TEXT


QUERY_TEXT: Final = ("query.text", "text")
VECTOR_FIELDS: Final = ("vector",)
EVENT_FIELDS: Final = frozenset(field for struct in KINDS.values() for field in struct.__struct_fields__)


def total_quantity(event: Event) -> float:
    return float(sum([line.quantity for line in event.lines])) if isinstance(event, Order) else np.nan


def account_age_s(event: Event) -> float:
    created = getattr(event, "account_created_ms", None)
    return np.nan if created is None else (event.ts_ms - created) / 1000.0


def is_abroad(event: Event) -> float:
    shipping, billing = getattr(event, "shipping_country", None), getattr(event, "billing_country", None)
    return np.nan if shipping is None or billing is None else float(shipping != billing)


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
) -> npt.NDArray[np.floating] | list[float]:
    """One number for each event; `numbers` and `at` hold the group's columns so far, for ratios."""
    if source.startswith("ratio "):
        top, bottom = (numbers[:, columns[name]] for name in source.removeprefix("ratio ").split(" / "))
        return np.divide(top, bottom, out=np.full(len(top), np.nan, np.float32), where=bottom > 0)
    prefix, _, rest = source.partition(".")
    if prefix == "profile":
        kind, _, aggregate = rest.partition(".")
        return aggregates.aggregates[kind][:, AGGREGATE_COLUMNS[aggregate]]
    if prefix == "column":
        return np.full(len(events), np.nan)
    if rest in DERIVED:
        return [DERIVED[rest](event) for event in events]
    return [to_number(getattr(event, rest, None)) for event in events]


NUMBERS: Final = (bool, int, float)  # a union would be made anew at each call


def to_number(value: object) -> float:
    return float(value) if isinstance(value, NUMBERS) else np.nan


def encode_vector(feature: Feature, events: Sequence[Event]) -> npt.NDArray[np.float32]:
    """The numbers (N, size) of a vector; NaN where it is absent or of another length, which another model made."""
    vectors = np.full((len(events), feature.size), np.nan, np.float32)
    field = feature.source.partition(".")[2]
    for row, event in enumerate(events):
        value = getattr(event, field, None)
        if isinstance(value, tuple) and len(value) == feature.size:
            vectors[row] = value
    return vectors


def encode_ids(feature: Feature, events: Sequence[Event], aggregates: ProfileAggregates) -> npt.NDArray[np.int64]:
    """The ids (N, width) of a category, sequence or text."""
    rest = feature.source.partition(".")[2]
    if feature.column is not None:
        return np.zeros((len(events), feature.width), np.int64)
    if feature.kind == "sequence":
        return aggregates.recent_ids[rest.partition(".")[0]].astype(np.int64)
    field = "query" if feature.source == "query.text" else rest
    values = [getattr(event, field, None) for event in events]
    if feature.kind == "text":
        return np.array([encode_text(str(value or "")) for value in values], np.int64).reshape(
            len(events), feature.width
        )
    texts = [None if value is None else str(value) for value in values]
    ids = {text: 0 if text is None else hash_id(f"{field}={text}") for text in set(texts)}  # few, of many rows
    return np.array([ids[text] for text in texts], np.int64).reshape(-1, 1)


@lru_cache(maxsize=4_096)  # searches that are frequent; titles hardly come twice
def encode_text(text: str) -> tuple[int, ...]:
    """Hashed words and character trigrams of a text, words first, as many as the width holds; 0 fills the rest."""
    words = [hash_word(word) for word in WORD.findall(text.lower())]
    grams = dict.fromkeys(chain((word_hash for word_hash, _ in words), *(trigrams for _, trigrams in words)))
    ids = list(islice(grams, WIDTHS["text"]))
    return tuple(ids + [0] * (WIDTHS["text"] - len(ids)))


@lru_cache(maxsize=65_536)  # a million titles are made of far fewer words
def hash_word(word: str) -> tuple[int, tuple[int, ...]]:
    """A word's own id, and those of its trigrams."""
    padded = f"_{word}_"
    return hash_id(f"w{word}"), tuple(hash_id(f"c{padded[i : i + 3]}") for i in range(len(padded) - 2))
