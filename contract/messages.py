"""What shopstream itself says: decisions, recommendation lists, scored rows, examples and dead letters.

Decisions, lists and dead letters are JSON, for readers in any language; scored rows and examples are MessagePack with
features as packed arrays, little-endian, exactly as they were served.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct

from contract.features.declaration import Block, FeatureSet

Action: TypeAlias = Literal["approve", "review", "decline"]
ACTIONS: Final[tuple[Action, ...]] = ("approve", "review", "decline")  # by severity


class Decision(Struct, frozen=True, gc=False, kw_only=True):
    """What we say of an order. `probability` by task; `degraded`: answered by rules alone, without a model."""

    event_id: str
    user_id: str
    ts_ms: int
    probability: dict[str, float]
    action: Action
    reasons: tuple[str, ...]
    model_version: str
    degraded: bool = False


class RecommendedItem(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One item of a list. `score` orders the list; `why` names the source of the candidate.

    `propensity`: the chance that a fresh item had to be on the list; the others are there for sure.
    """

    item_id: str
    score: float
    probability: dict[str, float]
    why: str
    propensity: float = 1.0


class Recommendations(Struct, frozen=True, gc=False, kw_only=True):
    """A user's list as cached at `rec:{user_id}`, best first. `source_ms`: the event time that it reflects."""

    user_id: str
    recommendation_id: str
    items: tuple[RecommendedItem, ...]
    model_version: str
    computed_ms: int
    source_ms: int
    degraded: bool = False


class Ranking(Struct, frozen=True, gc=False, kw_only=True):
    """The order of a search's items, best first, with the probability of being relevant."""

    event_id: str
    user_id: str
    query: str
    items: tuple[str, ...]
    relevance: tuple[float, ...]
    model_version: str


class PackedBlock(Struct, frozen=True, gc=False, array_like=True):
    """A `Block` on the wire: its number of rows, float32 numbers and int64 ids, row by row."""

    rows: int
    numbers: bytes
    ids: bytes

    def unpack(self) -> Block:
        """The block; one without rows has lost its width, too."""
        width = -1 if self.rows else 0
        return Block(
            np.frombuffer(self.numbers, "<f4").reshape(self.rows, width),
            np.frombuffer(self.ids, "<i8").reshape(self.rows, width),
        )


def pack(block: Block) -> PackedBlock:
    return PackedBlock(len(block), *block_to_bytes(block))


def pack_rows(block: Block) -> list[PackedBlock]:
    """Every row by itself."""
    return pack_spans(block, range(1, len(block) + 1))


def pack_spans(block: Block, ends: Sequence[int]) -> list[PackedBlock]:
    """Rows that follow one another, each span of them up to its end (exclusive) by itself."""
    (numbers, ids), n, m = block_to_bytes(block), 4 * block.numbers.shape[1], 8 * block.ids.shape[1]
    spans = zip([0, *ends], ends, strict=False)
    return [PackedBlock(end - begin, numbers[n * begin : n * end], ids[m * begin : m * end]) for begin, end in spans]


def block_to_bytes(block: Block) -> tuple[bytes, bytes]:
    """Numbers and ids, row by row."""
    return block.numbers.astype("<f4", copy=False).tobytes(), block.ids.astype("<i8", copy=False).tobytes()


ScoredKind: TypeAlias = Literal["order", "click", "recommendation", "search", "review", "product"]


class ScoredRow(Struct, frozen=True, gc=False, kw_only=True):
    """One answered event with its features as served: the audit log and the joiner's input.

    `groups` has one row for user, context, order and query; `item` has one row for each of `items`. For a
    recommendation list `event_id` is its recommendation_id; `scores` by task, one for each row scored. `ts_ms` is the
    event's time, `entities` (`kind:id`) are those that the event touched. `shadow` has what a second model said of the
    same rows, by task, and `shadow_version` which one; nobody acted on it.
    """

    event_id: str
    kind: ScoredKind
    user_id: str
    ts_ms: int
    topic: str
    partition: int
    offset: int
    model_version: str
    features: str  # FeatureSet.digest: what the columns of `groups` mean
    groups: dict[str, PackedBlock]
    items: tuple[str, ...] = ()
    scores: dict[str, tuple[float, ...]] = {}
    entities: tuple[str, ...] = ()
    query: str = ""  # what a search asked for, so that clicks can be joined to it
    propensities: tuple[float, ...] = ()  # of a list: the chance of each item to be on it; see `Recommended`
    shadow_version: str = ""
    shadow: dict[str, tuple[float, ...]] = {}


class Example(Struct, frozen=True, gc=False, kw_only=True):
    """Features as served with the labels known so far: one row of each group. The newest revision of an id counts.

    A task that `labels` lacks is unknown. `known_ms` says, for each label, when it became known, in the streams' time.
    `served` is what `model_version` said by task when it was served, `shadow` what `shadow_version` said beside it.
    `negative_rate`: the chance that this example had to be kept by the joiner, which leaves out negatives at random.
    """

    example_id: str
    revision: int
    event_id: str
    user_id: str
    ts_ms: int
    model_version: str
    features: str
    groups: dict[str, PackedBlock]
    labels: dict[str, float | str]
    known_ms: dict[str, int]
    item_id: str = ""
    entities: tuple[str, ...] = ()
    propensity: float = 1.0  # the chance that the item had to be shown; see `Recommended`
    served: dict[str, float] = {}
    shadow_version: str = ""
    shadow: dict[str, float] = {}
    negative_rate: float = 1.0


class ErasureConfirmation(Struct, frozen=True, gc=False, kw_only=True):
    """An erasure is carried out: what it covers is gone from Redis. All copies of one confirmation are the same."""

    event_id: str
    user_id: str
    ts_ms: int


class DeadLetter(Struct, frozen=True, gc=False, kw_only=True):
    """Why a record could not be answered; its original bytes, key and headers travel as the Kafka record's own.

    The record's value and key are the original ones; this struct is its `shopstream-dead-letter` header, as JSON.
    """

    reason: str
    error: str
    detail: str
    topic: str
    partition: int
    offset: int
    attempts: int
    model_version: str


DEAD_LETTER_HEADER: Final = "shopstream-dead-letter"
to_json: Final = msgspec.json.Encoder().encode
to_msgpack: Final = msgspec.msgpack.Encoder().encode
read_decision: Final = msgspec.json.Decoder(Decision).decode
read_recommendations: Final = msgspec.json.Decoder(Recommendations).decode
read_dead_letter: Final = msgspec.json.Decoder(DeadLetter).decode
read_scored_row: Final = msgspec.msgpack.Decoder(ScoredRow).decode
read_erasure_confirmation: Final = msgspec.json.Decoder(ErasureConfirmation).decode
read_example: Final = msgspec.msgpack.Decoder(Example).decode


def unpack_blocks(groups: Mapping[str, PackedBlock], features: FeatureSet, digest: str) -> dict[str, Block]:
    """The blocks of a row whose columns are those of `features`; raises ValueError for a row of another set."""
    if digest != features.digest:
        raise ValueError(f"A row should have the features {features.digest}. Found {digest}.")
    return {group: packed.unpack() for group, packed in groups.items()}
