"""Output messages: decisions, recommendation lists, rankings, scored rows, examples and dead letters.

Decisions, lists and dead letters are JSON, for readers in any language; scored rows and examples are MessagePack with
features as `PackedBlock`s.
"""

from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from contract.events.model import Event, Search
from contract.features.packing import PackedBlock
from contract.profiles.entity_updates import Arrival

Action: TypeAlias = Literal["approve", "review", "decline"]
ACTIONS: Final[tuple[Action, ...]] = ("approve", "review", "decline")  # by severity


class Decision(Struct, frozen=True, gc=False, kw_only=True):
    """The answer to an order. `probability` by task; `degraded`: decided by rules alone, without a model."""

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

    `propensity`: the probability with which a fresh item was put on the list; 1 for all others. `rule`: the names of
    the list rules that put it where it is, separated by `, `; left out where none did.
    """

    item_id: str
    score: float
    probability: dict[str, float]
    why: str
    propensity: float = 1.0
    rule: str = ""


class Recommendations(Struct, frozen=True, gc=False, kw_only=True):
    """A user's list as cached at `rec:{user_id}`, best item first. `source_ms`: the event time that it reflects.

    `experiments`: the arm of the user by experiment, left out without any. `rule`: of an empty list, the names of the
    rules that leave no item; left out otherwise.
    """

    user_id: str
    recommendation_id: str
    items: tuple[RecommendedItem, ...]
    model_version: str
    computed_ms: int
    source_ms: int
    degraded: bool = False
    experiments: dict[str, str] | UnsetType = UNSET
    rule: str | UnsetType = UNSET


class ListedItem(Struct, frozen=True, gc=False, kw_only=True):
    """One item of a list that stands by itself. `score` orders the list; `why` names what put the item on it."""

    item_id: str
    score: float
    why: str


class ShopList(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A list of no user, best item first, as cached at `similar:{item_id}`, `together:{item_id}` and `trending`.

    `model_version`: of the bundle that it comes from; left out for `trending`.
    """

    items: tuple[ListedItem, ...]
    computed_ms: int
    model_version: str = ""


class PlacementKeys(Struct, frozen=True, gc=False, kw_only=True):
    """How many items a placement shows, and the keys of the lists that fill it, without the shop's prefix."""

    length: int
    keys: tuple[str, ...]


class Ranking(Struct, frozen=True, gc=False, kw_only=True):
    """The order of a search's items, best first, with the probability of being relevant."""

    event_id: str
    user_id: str
    query: str
    items: tuple[str, ...]
    relevance: tuple[float, ...]
    model_version: str


ScoredKind: TypeAlias = Literal["order", "click", "recommendation", "search", "review", "product"]
LIST_KIND: Final[ScoredKind] = "recommendation"


class ScoredRow(Struct, frozen=True, gc=False, kw_only=True):
    """One answered event with its features as served: the audit log and the joiner's input.

    `groups` has one row for user, context, order and query; `item` has one row for each of `items`. For a
    recommendation list `event_id` is its recommendation_id. `scores` by task, one for each row scored. `ts_ms` is the
    event's time; `entities` (`kind:id`) are those that the event updated. `shadow`: the scores of the shadow model
    `shadow_version` for the same rows, by task; they are logged and not acted on. `is_conflict`: another event has this
    id, so no label belongs to the row. `experiments`: of a list, the arm of the user by experiment. `rules`: of a list
    on which list rules acted, their names by item, empty for none; `pinned`: the places (from 0) whose items they pin.
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
    query: str = ""  # of a search, so that clicks can be joined to it
    propensities: tuple[float, ...] = ()  # of a list, by item; see `RecommendedItem`
    shadow_version: str = ""
    shadow: dict[str, tuple[float, ...]] = {}
    is_conflict: bool = False
    experiments: dict[str, str] | UnsetType = UNSET
    rules: tuple[str, ...] | UnsetType = UNSET
    pinned: tuple[int, ...] | UnsetType = UNSET


class ScoredRowBuilder(NamedTuple):
    """Builds the scored rows of one batch from what they share: the feature set and the model version (empty: none).

    `shadow_version`: the shadow model, whose scores are logged and not acted on.
    """

    features: str
    model_version: str
    shadow_version: str = ""

    def build(
        self,
        kind: ScoredKind,
        arrival: Arrival,
        groups: dict[str, PackedBlock],
        *,
        event_id: str | None = None,
        items: tuple[str, ...] = (),
        scores: dict[str, tuple[float, ...]] | None = None,
        entities: tuple[str, ...] = (),
        shadow: dict[str, tuple[float, ...]] | None = None,
    ) -> ScoredRow:
        """One scored row; `groups` has one row of each group, and of `item` one row for each of `items`.

        The row keeps the dicts that it is given: they should not be changed afterwards.
        """
        event: Event = arrival.event
        row = ScoredRow(  # from the 16th keyword on Python builds a dict for a call, which takes longer than the row
            event_id=event_id or event.event_id,
            kind=kind,
            user_id=getattr(event, "user_id", ""),
            ts_ms=event.ts_ms,
            topic=arrival.topic,
            partition=arrival.partition,
            offset=arrival.offset,
            model_version=self.model_version,
            features=self.features,
            groups=groups,
            items=items,
            scores=scores or {},
            entities=entities,
            query=event.query if type(event) is Search else "",
        )
        return replace(row, shadow_version=self.shadow_version, shadow=shadow) if shadow else row


class Example(Struct, frozen=True, gc=False, kw_only=True):
    """Features as served with the labels known so far: one row of each group. The newest revision of an id counts.

    A task that `labels` lacks has no label yet. `known_ms`: the event time at which each label became known. `served`:
    the scores of `model_version` by task; `shadow`: those of `shadow_version`. `negative_rate`: the probability with
    which the joiner, which samples negatives, kept this example. `experiments`: as in the scored row. `place`: of an
    item of a list, its place there, from 0.
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
    propensity: float = 1.0  # see `RecommendedItem`
    served: dict[str, float] = {}
    shadow_version: str = ""
    shadow: dict[str, float] = {}
    negative_rate: float = 1.0
    experiments: dict[str, str] | UnsetType = UNSET
    place: int | None = None


class ErasureConfirmation(Struct, frozen=True, gc=False, kw_only=True):
    """An erasure is complete: what it covers is deleted from Redis. All copies of one confirmation are identical."""

    event_id: str
    user_id: str
    ts_ms: int


class DeadLetter(Struct, frozen=True, gc=False, kw_only=True):
    """Why a record could not be answered.

    The dead-letter record has the value, key and headers of the original; this struct is an additional header,
    `shopstream-dead-letter`, as JSON. `value_bytes` and `value_sha256` are those of a value that was cut.
    """

    reason: str
    error: str
    detail: str
    topic: str
    partition: int
    offset: int
    attempts: int
    model_version: str
    value_bytes: int | None = None
    value_sha256: str | None = None


DEAD_LETTER_HEADER: Final = "shopstream-dead-letter"
to_json: Final = msgspec.json.Encoder().encode
to_msgpack: Final = msgspec.msgpack.Encoder().encode
read_decision: Final = msgspec.json.Decoder(Decision).decode
read_recommendations: Final = msgspec.json.Decoder(Recommendations).decode
read_dead_letter: Final = msgspec.json.Decoder(DeadLetter).decode
read_scored_row: Final = msgspec.msgpack.Decoder(ScoredRow).decode
read_erasure_confirmation: Final = msgspec.json.Decoder(ErasureConfirmation).decode
read_example: Final = msgspec.msgpack.Decoder(Example).decode
