"""Features: what is declared in `features.toml`, and the arrays that a model reads.

Values are raw: everything learned from data (means, clipping, vocabularies) and every guard against bad input is part
of the exported graph. A feature that is not known is NaN among the numbers and 0 among the ids. Each group of features
is a `Block` of N rows: `numbers` (N, n) float32 and `ids` (N, m) int64, in the order of declaration; a category takes
one id column, a sequence and a text several. A vector of length k takes k number columns, after those of numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from contract.errors import BadConfig
from contract.events.model import LIST_ITEMS_MAX, Event
from contract.features.columns import (
    ENCODING_VERSION,
    WIDTHS,
    CountAbsent,
    ProfileAggregates,
    encode_ids,
    encode_number,
    encode_vector,
    ignore_absent,
)
from contract.features.sources import describe_nearest_source, is_known_source
from contract.hashing import SEED, hash_id

GROUPS: Final = ("user", "context", "order", "item", "query", "review")

Kind: TypeAlias = Literal["number", "category", "sequence", "text", "vector"]
Group: TypeAlias = Literal["user", "context", "order", "item", "query", "review"]


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One declared feature.

    `source` is `event.FIELD` (or one of `DERIVED`), `event.attributes.NAME`, `profile.KIND.AGGREGATE`,
    `profile.KIND.recent`, `item.FIELD`, `item.attributes.NAME`, `query.text`, or `ratio A / B` of two number features
    declared before it in the same group. `column.NAME` is a column of a plain table (`training.data.tabular`): no event
    has it, so a worker refuses a model that needs it. `size`: the length of a vector. `entity`: the declaration of the
    entity whose profile is the source, if the shop declares it itself; `read_features` fills it in.
    """

    name: str
    group: Group
    kind: Kind
    source: str
    size: int = 0
    entity: str = ""

    @property
    def entity_kind(self) -> str | None:
        """The kind of entity whose profile is its source, if one is."""
        prefix, *rest = self.source.split(".")
        return rest[0] if prefix == "profile" and rest else None

    @property
    def width(self) -> int:
        """How many columns of its block it takes."""
        return self.size if self.kind == "vector" else WIDTHS[self.kind]

    @property
    def column(self) -> str | None:
        """The column of a plain table that is its source, if one is."""
        return self.source.removeprefix("column.") if self.source.startswith("column.") else None

    @property
    def digest(self) -> str:
        """Changes when the values might change: with the declaration, the width, the hash or the encoding."""
        meaning = f"{self.name} {self.group} {self.kind} {self.source} {self.width} {SEED} {ENCODING_VERSION}"
        return f"{hash_id(f'{meaning} {self.entity}' if self.entity else meaning):016x}"


class Span(NamedTuple):
    """The columns of a feature's ids, or of a vector's numbers, in its block."""

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


class GroupLayout(NamedTuple):
    """The columns of a group's block: numbers, then vectors; and ids. `widths`: how many of both."""

    numbers: tuple[Feature, ...] = ()
    vectors: tuple[Span, ...] = ()
    spans: tuple[Span, ...] = ()
    widths: tuple[int, int] = (0, 0)


NO_COLUMNS: Final = GroupLayout()


def lay_out(features: Sequence[Feature]) -> GroupLayout:
    """The columns of the features of one group."""
    numbers = tuple(feature for feature in features if feature.kind == "number")
    vectors, number_count = assign_columns([f for f in features if f.kind == "vector"], len(numbers))
    spans, id_count = assign_columns([f for f in features if f.kind not in ("number", "vector")], 0)
    return GroupLayout(numbers, vectors, spans, (number_count, id_count))


def assign_columns(features: Sequence[Feature], start: int) -> tuple[tuple[Span, ...], int]:
    """The columns of features from a start on, and their end."""
    spans = list[Span]()
    for feature in features:
        spans.append(Span(feature, start, feature.width))
        start += feature.width
    return tuple(spans), start


class FeatureSet:
    """The declared features in order, and the encoders that fill their blocks."""

    def __init__(self, features: Iterable[Feature]) -> None:
        self.features = tuple(features)
        mistakes = list(find_mistakes(self.features))
        if mistakes:
            raise BadConfig([mistake.sentence for mistake in mistakes])
        self.digests = {feature.name: feature.digest for feature in self.features}
        # Of the whole set in its order: two blocks of equal digest have the same columns.
        self.digest = f"{hash_id(' '.join(self.digests.values())):016x}"
        groups = dict.fromkeys(feature.group for feature in self.features)
        self._layouts: dict[str, GroupLayout] = {
            group: lay_out([f for f in self.features if f.group == group]) for group in groups
        }

    def numbers(self, group: str) -> tuple[Feature, ...]:
        """The number features of a group, one column each."""
        return self._layouts.get(group, NO_COLUMNS).numbers

    def spans(self, group: str) -> tuple[Span, ...]:
        """The id features of a group and their columns."""
        return self._layouts.get(group, NO_COLUMNS).spans

    def vectors(self, group: str) -> tuple[Span, ...]:
        """The vectors of a group and their number columns, which follow those of `numbers`."""
        return self._layouts.get(group, NO_COLUMNS).vectors

    def widths(self, group: str) -> tuple[int, int]:
        """How many number and id columns a group's block has."""
        return self._layouts.get(group, NO_COLUMNS).widths

    def empty_block(self, group: str, rows: int) -> Block:
        """A block of unknown values."""
        n, m = self.widths(group)
        return Block(np.full((rows, n), np.nan, np.float32), np.zeros((rows, m), np.int64))

    def encode(
        self,
        group: str,
        events: Sequence[Event],
        aggregates: ProfileAggregates,
        count_absent: CountAbsent = ignore_absent,
    ) -> Block:
        """The block of a group for N events, given what profiles knew before each of them."""
        block = self.empty_block(group, len(events))
        columns: dict[str, int] = {}
        for column, feature in enumerate(self.numbers(group)):
            columns[feature.name] = column
            block.numbers[:, column] = encode_number(
                feature.source, events, aggregates, block.numbers, columns, count_absent
            )
        for span in self.vectors(group):
            block.numbers[:, span.start : span.start + span.width] = encode_vector(
                span.feature.source, span.width, events, count_absent
            )
        for span in self.spans(group):
            block.ids[:, span.start : span.start + span.width] = encode_ids(
                span.feature.kind, span.feature.source, events, aggregates, count_absent
            )
        return block

    def select(self, names: Iterable[str]) -> "FeatureSet":
        """Only the named features, in the declared order: the columns that an older or narrower bundle reads."""
        wanted = set(names)
        return FeatureSet(feature for feature in self.features if feature.name in wanted)


class Mistake(NamedTuple):
    """What is wrong with a declared feature: its number among all, and a sentence."""

    number: int
    sentence: str


def find_mistakes(features: Sequence[Feature]) -> Iterable[Mistake]:
    """Every reason why these features cannot be served."""
    seen: dict[str, Feature] = {}
    for number, feature in enumerate(features):
        for sentence in find_feature_mistakes(feature, seen):
            yield Mistake(number, sentence)
        seen[feature.name] = feature


def find_feature_mistakes(f: Feature, seen: Mapping[str, Feature]) -> Iterable[str]:
    """What is wrong with a feature, as sentences; `seen`: those declared before it."""
    if f.name in seen:
        yield f"Feature names should be unique. Found `{f.name}` twice."
    if f.source.startswith("ratio "):
        names = f.source.removeprefix("ratio ").split(" / ")
        if len(names) != 2 or f.kind != "number":
            yield f"`{f.name}` should be a number, the ratio of two others. Found `{f.source}` ({f.kind})."
        for name in names:
            if name not in seen or seen[name].group != f.group or seen[name].kind != "number":
                yield f"`{f.name}` should be a ratio of two numbers of its group. Found `{name}` not before it."
    elif not is_known_source(f.kind, f.source, is_declared=bool(f.entity)):
        nearest = describe_nearest_source(f.kind, f.source)
        yield f"`{f.name}` should have a source that exists for its kind. Found `{f.source}` ({f.kind}){nearest}."
    if (f.kind == "vector") != (0 < f.size <= LIST_ITEMS_MAX):
        yield f"A vector, and no other, should have a size up to {LIST_ITEMS_MAX}. Found {f.size} in `{f.name}`."
