"""Claims in Redis: the first answer to an event is stored, and a later attempt publishes the stored one.

A claim is the public message at `decision:{event_id}` (for orders) as JSON, with its scored row in one more field. So
every attempt publishes both from the same bytes.
"""

import base64
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

import msgspec

from contract.messages import ScoredRow, read_scored_row, to_msgpack
from worker.ops import metrics
from worker.records.answers import ANSWER_KINDS, Answer, AnswerKind, ClaimPolicy, kinds_among
from worker.redis.client import RedisClient
from worker.state.user_key_index import UserKeyIndex


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """The field of a claim that its public message lacks: the scored row, MessagePack in base64."""

    scored: str


READ_STORED_ROW: Final = msgspec.json.Decoder(StoredRow).decode


class ClaimKey(NamedTuple):
    """Names one claim."""

    kind: AnswerKind
    user_id: str
    event_id: str


class ClaimStore:
    """Claims of the kinds that have a `ClaimPolicy`, kept for `ttl_s`: longer than a crashed batch waits for its retry.

    `kinds`: those whose claims this worker deletes for erased users.
    """

    def __init__(
        self, *, client: RedisClient, prefix: str, ttl_s: int, kinds: Iterable[AnswerKind] = ANSWER_KINDS
    ) -> None:
        self.client, self.prefix, self.ttl_s = client, prefix, ttl_s
        self._kinds = tuple(kind for kind in kinds if kind.claim)
        self._indexes: dict[str, UserKeyIndex] = {}

    def claim(self, answers: list[Answer]) -> list[Answer]:
        """Each answer that needs a claim, replaced by the stored one if its event was answered before; others as given.

        Raises `Unavailable`; then it may be called again.
        """
        if not any(kind.claim for kind in kinds_among(answers)):
            return answers
        claimed = [number for number, answer in enumerate(answers) if answer.kind.claim]
        items = [(self._key(answers[number]), to_stored(answers[number])) for number in claimed]
        existing = self.client.set_if_absent(items, self.ttl_s, self._index_commands([answers[n] for n in claimed]))
        metrics.DECISIONS_REPEATED.inc(sum(value is not None for value in existing))
        result = list(answers)
        for number, value in zip(claimed, existing, strict=True):
            if value is not None:
                result[number] = from_stored(answers[number].kind, value)
        return result

    def delete_erased(self, until_ms: Mapping[str, int], is_answered: Callable[[str, int, int], bool]) -> None:
        """Delete claims of users (by id) on events up to a time, once `is_answered` (topic, partition, offset).

        A claim that is not published yet stays until it is: a repeated batch must find it.
        """
        for kind in self._kinds:
            for user, until in until_ms.items():
                events = sorted(self._index(kind).find(user))
                values = self.client.pipeline([("GET", self._event_key(kind, event)) for event in events])
                deletable = [
                    event
                    for event, value in zip(events, values, strict=True)
                    if not value or is_deletable(value, until, is_answered)
                ]
                self._delete(kind, user, deletable)

    def delete_answered(self, keys: Iterable[ClaimKey]) -> None:
        """Delete these claims, whose answers are published."""
        events_by_owner = defaultdict[tuple[AnswerKind, str], list[str]](list)
        for kind, user, event_id in keys:
            if kind.claim:
                events_by_owner[kind, user].append(event_id)
        for (kind, user), events in events_by_owner.items():
            self._delete(kind, user, events)

    def _delete(self, kind: AnswerKind, user: str, events: Sequence[str]) -> None:
        if events:
            self.client.pipeline([("DEL", self._event_key(kind, event)) for event in events])
            self._index(kind).remove(user, events)

    def _index_commands(self, answers: Sequence[Answer]) -> list[tuple[object, ...]]:
        commands = list[tuple[object, ...]]()
        for kind, group in groupby(answers, key=attrgetter("kind")):
            commands += self._index(kind).add_commands((a.scored.user_id, a.scored.event_id) for a in group)
        return commands

    def _index(self, kind: AnswerKind) -> UserKeyIndex:
        name = claim_policy(kind).index_key
        if name not in self._indexes:
            self._indexes[name] = UserKeyIndex(client=self.client, prefix=f"{self.prefix}{name}:", ttl_s=self.ttl_s)
        return self._indexes[name]

    def _key(self, answer: Answer) -> str:
        return self._event_key(answer.kind, answer.scored.event_id)

    def _event_key(self, kind: AnswerKind, event_id: str) -> str:
        return f"{self.prefix}{claim_policy(kind).key}:{event_id}"


def claim_policy(kind: AnswerKind) -> ClaimPolicy:
    assert kind.claim is not None
    return kind.claim


def is_deletable(value: bytes, until_ms: int, is_answered: Callable[[str, int, int], bool]) -> bool:
    """Whether a claim is of an event up to that time, and published."""
    scored = read_stored_row(value)
    return scored.ts_ms <= until_ms and is_answered(scored.topic, scored.partition, scored.offset)


def to_stored(answer: Answer) -> bytes:
    """The public message with `scored` as its last field."""
    message = answer.kind.encode(answer.message)
    return b'%b,"scored":"%b"}' % (message[:-1], base64.b64encode(to_msgpack(answer.scored)))


def from_stored(kind: AnswerKind, value: bytes) -> Answer:
    return Answer(kind, read_stored_row(value), msgspec.json.decode(value, type=kind.message))


def read_stored_row(value: bytes) -> ScoredRow:
    return read_scored_row(base64.b64decode(READ_STORED_ROW(value).scored))
