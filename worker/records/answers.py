"""Answers and their kinds: what the worker publishes, claims, caches and counts. The pipeline knows no kind by name.

A new kind of answer is one more `AnswerKind` here and one more handler in `worker.scoring.handlers`.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace

from contract.features.columns import encode_text
from contract.hashing import hash_id
from contract.messages import ACTIONS, Decision, Ranking, Recommendations, ScoredRow, to_json, to_msgpack
from contract.settings.worker import ListSettings
from worker.ops import metrics

SEARCH_TTL_S: Final = 3_600
ID_TAKEN: Final = "order id already used by another order"


class ClaimPolicy(NamedTuple):
    """The first answer to an event is final: it is stored at `{key}:{event_id}` before it is published.

    `index_key`: the key of the sets that list each user's claims. `to_conflict`: the message for an event with the
    id of another one that is answered.
    """

    key: str
    index_key: str
    to_conflict: Callable[[Any], Any] = lambda message: message


class CachePolicy(NamedTuple):
    """An answer is cached for readers at `{key}:{user_id}`, or at `{key}:{user_id}:{entry_id}` where there are several.

    `ttl_s` and `entry_id` are functions of the settings and of the message. `index_key`: the key of the sets that list
    each user's entries. `keeps_newer`: an entry whose `source_ms` is later than the message's is not overwritten.
    `observe_age_s` gets the age that the `source_ms` of each of these has when it has been written.
    """

    key: str
    ttl_s: Callable[[ListSettings], int]
    entry_id: Callable[[Any], str] | None = None
    index_key: str = ""
    keeps_newer: bool = False
    observe_age_s: Callable[[float], None] | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AnswerKind:
    """One kind of answer. Compared by identity.

    `name`: the label of its metrics. `message`: the type of its messages, None if only its scored row is published.
    `topic`: a field of `TopicSettings`, empty if its messages are not published. `record_key`: the key of a message's
    record. `answers_erased`: events of an erased user are answered too; the claim is deleted once it is published.
    `count`: further metrics of a batch's published messages.
    """

    name: str
    message: type[msgspec.Struct] | None = None
    topic: str = ""
    record_key: Callable[[Any], str] = attrgetter("user_id")
    encode: Callable[[Any], bytes] = to_json
    claim: ClaimPolicy | None = None
    cache: CachePolicy | None = None
    answers_erased: bool = False
    count: Callable[[Iterable[Any]], None] | None = None


class Answer(msgspec.Struct, gc=False, eq=False):
    """One answer: its scored row, and its message where the kind has one, each encoded once for claim and record.

    `digest`: of the event's content, for kinds that are claimed; empty if it is not known.
    """

    kind: AnswerKind
    scored: ScoredRow
    message: Any = None
    digest: str = ""
    row_bytes: bytes | None = None  # once it is encoded
    message_bytes: bytes | None = None

    def encode_row(self) -> bytes:
        """The scored row as MessagePack."""
        if self.row_bytes is None:
            self.row_bytes = to_msgpack(self.scored)
        return self.row_bytes

    def encode_message(self) -> bytes:
        """The message, as its kind encodes it."""
        if self.message_bytes is None:
            self.message_bytes = self.kind.encode(self.message)
        return self.message_bytes

    def replace(self, **changes: Any) -> "Answer":
        """The answer with other fields, which are encoded when they are needed."""
        return replace(self, row_bytes=None, message_bytes=None, **changes)

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, whichever of them is encoded already."""
        if not isinstance(other, Answer):
            return NotImplemented
        first, second = ((answer.kind, answer.scored, answer.message, answer.digest) for answer in (self, other))
        return first == second


def kinds_among(answers: Iterable[Answer]) -> set[AnswerKind]:
    """The kinds of these answers; cheap, so that a batch of thousands of one kind is skipped where it needs nothing."""
    return set(map(attrgetter("kind"), answers))


def digest_query(ranking: Ranking) -> str:
    """The digest of a query's words: case and spaces do not matter."""
    return f"{hash_id(' '.join(map(str, encode_text(ranking.query)))):016x}"


def decide_conflict(decision: Decision) -> Decision:
    """The decision of an order whose id is another order's: for review."""
    action = max("review", decision.action, key=ACTIONS.index)
    return replace(decision, action=action, reasons=(*decision.reasons, ID_TAKEN))


def count_decisions(decisions: Iterable[Decision]) -> None:
    for action, count in Counter(map(attrgetter("action"), decisions)).items():
        metrics.DECISIONS.labels(action).inc(count)


DECISION: Final = AnswerKind(
    name="decision",
    message=Decision,
    topic="decisions",
    claim=ClaimPolicy("decision", "decided", decide_conflict),
    answers_erased=True,  # the shop waits for it
    count=count_decisions,
)
LIST: Final = AnswerKind(
    name="list",
    message=Recommendations,
    cache=CachePolicy("rec", attrgetter("ttl_s"), keeps_newer=True, observe_age_s=metrics.LIST_AGE_SECONDS.observe),
)
RANKING: Final = AnswerKind(
    name="ranking",
    message=Ranking,
    topic="rankings",
    cache=CachePolicy("search", lambda lists: SEARCH_TTL_S, entry_id=digest_query, index_key="searched"),
)
CLICK: Final = AnswerKind(name="click")

ANSWER_KINDS: Final = (DECISION, LIST, RANKING, CLICK)
