"""Claims in Redis: the first answer to an event is stored, and a later attempt publishes the stored one.

A claim is the public message at `decision:{event_id}` (for orders) as JSON, with its scored row and a digest of the
event in two more fields. So every attempt publishes both from the same bytes, and another event with the same id is
noticed: it gets a claim of its own, at `decision:{event_id}:{digest}`.
"""

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from contract.events.model import DIGEST_BYTES
from contract.messages import ScoredRow, read_scored_row, to_json
from contract.redis_keys import escape_id, escape_ids
from worker.ops import metrics
from worker.records.answers import ANSWER_KINDS, Answer, AnswerKind, ClaimPolicy, kinds_among
from worker.redis.client import RedisClient, WrongType
from worker.state.erasure_fence import ErasureFence
from worker.state.guarded_writer import GuardedWrite, GuardedWriter, Mode, Reply, WritePolicy
from worker.state.user_key_index import UserKeyIndex

DEFAULT_TTL_S: Final = 7 * 86_400
UNREADABLE: Final = (msgspec.MsgspecError, ValueError)  # what decoding raises


class StoredFields(msgspec.Struct, frozen=True, gc=False):
    """The fields of a claim that its public message lacks: the scored row, MessagePack in base64, and the digest."""

    scored: str
    digest: str = ""  # claims of the former release have none


READ_STORED: Final = msgspec.json.Decoder(StoredFields).decode


class ClaimKey(NamedTuple):
    """Names the claims of one event: the one of its id, if that is the event's own, and the one of its digest."""

    kind: AnswerKind
    user_id: str
    event_id: str
    digest: str = ""


class ClaimStore:
    """Claims of the kinds that have a `ClaimPolicy`, kept for `ttl_s`: longer than a crashed batch waits for its retry.

    `kinds`: those whose claims this worker deletes for erased users.
    """

    def __init__(
        self,
        *,
        client: RedisClient,
        prefix: str,
        ttl_s: int,
        kinds: Iterable[AnswerKind] = ANSWER_KINDS,
        fence: ErasureFence | None = None,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.client, self.prefix, self.ttl_s = client, prefix, ttl_s
        self._fence = fence or ErasureFence(prefix=prefix)
        self._writer = GuardedWriter(client=client, fence=self._fence, kind="claim")
        self._clock_s = clock_s
        self._kinds = tuple(kind for kind in kinds if kind.claim)
        self._indexes: dict[str, UserKeyIndex] = {}

    def claim(self, answers: list[Answer]) -> list[Answer]:
        """Each answer that needs a claim, replaced by the stored one if its event was answered before; others as given.

        Another event with the id of an answered one gets the answer that the policy has for it. An event that an
        erasure covers gets no claim. Raises `UnknownErasure` or `Unavailable`; then it may be called again.
        """
        result = list(answers)
        for kind in kinds_among(answers):
            if kind.claim:
                self._claim_kind(kind, result)
        return result

    def _claim_kind(self, kind: AnswerKind, result: list[Answer]) -> None:
        """Claim the answers of a kind, and put what is stored in their places."""
        policy = WritePolicy(self.ttl_s, Mode.FIRST, self._index(kind))
        numbers = [number for number, answer in enumerate(result) if answer.kind is kind]
        pending = list(zip(numbers, self._to_writes(kind, [result[number] for number in numbers]), strict=True))
        while pending:
            replies = self._writer.write(policy, [write for _, write in pending], int(self._clock_s()))
            pending = list(self._settle(result, pending, replies))

    def _settle(
        self, result: list[Answer], claims: Sequence[tuple[int, GuardedWrite]], replies: Sequence[Reply]
    ) -> Iterable[tuple[int, GuardedWrite]]:
        """Put what is stored into `result`; returns the claims to write again, under another key or over a value."""
        first_numbers = dict[str, int]()  # an event without a claim may be twice in a batch
        for (number, write), reply in zip(claims, replies, strict=True):
            if not isinstance(reply, bytes):
                first_number = first_numbers.setdefault(write.key, number)
                if first_number != number and result[first_number].scored.user_id == write.user:
                    result[number] = result[first_number]
                continue
            answer = result[number]
            try:
                stored = from_stored(answer.kind, reply)
            except UNREADABLE:
                yield number, write._replace(unreadable=reply)
                continue
            if is_same_event(stored, answer):
                metrics.DECISIONS_REPEATED.inc()
                result[number] = stored
            elif write.entry != escape_id(answer.scored.event_id):  # a digest's key, with another digest's claim
                yield number, write._replace(unreadable=reply)
            else:
                result[number] = to_conflict(answer)
                (conflict,) = self._to_writes(answer.kind, [result[number]])
                yield number, conflict

    def delete_erased(self, until_ms: Mapping[str, int], is_answered: Callable[[str, int, int], bool]) -> None:
        """Delete claims of users (by id) on events up to a time, once `is_answered` (topic, partition, offset).

        A claim that is not published yet stays until it is: a repeated batch must find it. Late claims of these users
        are kept out from now on.
        """
        self._fence.mark(self.client, until_ms, self.ttl_s)
        for kind in self._kinds:
            for user, until in until_ms.items():
                entries = sorted(self._index(kind).find(user))
                values = self._read([self._key(kind, entry) for entry in entries])
                deleted, foreign = list[str](), list[str]()
                for entry, value in zip(entries, values, strict=True):
                    row = None if value is None else try_read_row(value)
                    if row is not None and row.user_id != user:
                        foreign.append(entry)
                    elif row is None or (row.ts_ms <= until and is_answered(row.topic, row.partition, row.offset)):
                        deleted.append(entry)
                self._index(kind).remove(user, foreign)
                self._delete(kind, user, deleted)

    def delete_answered(self, keys: Iterable[ClaimKey]) -> None:
        """Delete these claims, whose answers are published."""
        wanted = [
            (kind, user, entry)
            for kind, user, event_id, digest in keys
            if kind.claim
            for entry in (escape_id(event_id), conflict_entry(event_id, digest, user))
        ]
        values = self._read([self._key(kind, entry) for kind, _, entry in wanted])
        for (kind, user, entry), value in zip(wanted, values, strict=True):
            row = None if value is None else try_read_row(value)
            if row is not None and row.user_id == user:
                self._delete(kind, user, [entry])

    def _to_writes(self, kind: AnswerKind, answers: Sequence[Answer]) -> list[GuardedWrite]:
        """The claims of answers of one kind."""
        rows = [answer.scored for answer in answers]
        entries = [
            conflict_entry(row.event_id, answer.digest, row.user_id) if row.is_conflict else ident
            for answer, row, ident in zip(answers, rows, escape_ids([row.event_id for row in rows]), strict=True)
        ]
        prefix = self._key(kind, "")
        return [
            GuardedWrite(prefix + entry, to_stored(answer), row.user_id, row.ts_ms, entry)
            for answer, row, entry in zip(answers, rows, entries, strict=True)
        ]

    def _read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The claims at these keys; a key of another type is deleted: it is no claim."""
        while True:
            try:
                return self.client.pipeline([("GET", key) for key in keys])
            except WrongType as error:
                metrics.UNREADABLE_KEYS.labels("claim").inc(self.client.delete_other_type(error.key, "string"))

    def _delete(self, kind: AnswerKind, user: str, entries: Sequence[str]) -> None:
        if entries:
            self.client.pipeline([("DEL", self._key(kind, entry)) for entry in entries])
            self._index(kind).remove(user, entries)

    def _index(self, kind: AnswerKind) -> UserKeyIndex:
        name = claim_policy(kind).index_key
        if name not in self._indexes:
            self._indexes[name] = UserKeyIndex(
                client=self.client,
                prefix=f"{self.prefix}{name}:",
                former_ttls_s=(self.ttl_s, DEFAULT_TTL_S),
                clock_s=self._clock_s,
            )
        return self._indexes[name]

    def _key(self, kind: AnswerKind, entry: str) -> str:
        return f"{self.prefix}{claim_policy(kind).key}:{entry}"


def claim_policy(kind: AnswerKind) -> ClaimPolicy:
    assert kind.claim is not None
    return kind.claim


def to_conflict(answer: Answer) -> Answer:
    """The answer to an event whose id another event has."""
    metrics.DECISION_CONFLICTS.inc()
    message = claim_policy(answer.kind).to_conflict(answer.message)
    return answer.replace(scored=replace(answer.scored, is_conflict=True), message=message)


def conflict_entry(event_id: str, digest: str, user: str) -> str:
    """Names the claim of an event whose id another event has; by its user where its content is not known."""
    return f"{escape_id(event_id)}:{digest or hashlib.blake2b(user.encode(), digest_size=DIGEST_BYTES).hexdigest()}"


def is_same_event(stored: Answer, answer: Answer) -> bool:
    """Whether both answer one event: one record, or two with the same content."""
    first, second = stored.scored, answer.scored
    if first.user_id != second.user_id:
        return False
    is_same_record = (first.topic, first.partition, first.offset) == (second.topic, second.partition, second.offset)
    return is_same_record or not stored.digest or not answer.digest or stored.digest == answer.digest


def to_stored(answer: Answer) -> bytes:
    """The public message with `scored` and `digest` as its last fields."""
    message, row = answer.encode_message(), to_json(answer.encode_row())  # as base64, faster than `base64` does it
    return b"".join((message[:-1], b',"scored":', row, b',"digest":"', answer.digest.encode(), b'"}'))


def from_stored(kind: AnswerKind, value: bytes) -> Answer:
    """The answer of a claim; raises one of `UNREADABLE`."""
    fields = READ_STORED(value)
    row = read_scored_row(base64.b64decode(fields.scored))
    return Answer(kind, row, msgspec.json.decode(value, type=kind.message), fields.digest)


def try_read_row(value: bytes) -> ScoredRow | None:
    """The scored row of a claim; None if it is unreadable."""
    try:
        return read_scored_row(base64.b64decode(READ_STORED(value).scored))
    except UNREADABLE:
        return None
