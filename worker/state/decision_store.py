"""Claims: an order is decided once. Whoever decides first writes it down; every later life publishes what stands there.

A claim is the public `decision:{event_id}` itself: the Decision as JSON, with the scored row that goes with it in one
more field, so that both are published from the same bytes however often the batch is tried.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from contract.messages import Decision, ScoredRow, read_scored_row, to_json, to_msgpack
from worker.ops import metrics
from worker.redis.client import RedisClient
from worker.state.user_key_index import UserKeyIndex


class StoredDecision(Decision, frozen=True, gc=False, kw_only=True):
    """A decision as it stands in Redis; `scored` is the scored row, MessagePack in base64."""

    scored: str


DECODE: Final = msgspec.json.Decoder(StoredDecision).decode


class DecisionStore:
    """The decisions in Redis, kept for `ttl_s`: longer than a crashed batch may wait to be tried again."""

    def __init__(self, *, client: RedisClient, prefix: str, ttl_s: int) -> None:
        self.client, self.prefix, self.ttl_s = client, prefix, ttl_s
        self._index = UserKeyIndex(client=client, prefix=f"{prefix}decided:", ttl_s=ttl_s)

    def claim(self, answers: Sequence[tuple[Decision, ScoredRow]]) -> list[tuple[Decision, ScoredRow]]:
        """What stands for each event after this call: the given answer, or the one that was there before."""
        items = [(self._key(answer[0].event_id), to_json(to_stored(*answer))) for answer in answers]
        index_commands = self._index.add_commands((decision.user_id, decision.event_id) for decision, _ in answers)
        existing = self.client.set_if_absent(items, self.ttl_s, index_commands)
        metrics.DECISIONS_REPEATED.inc(sum(value is not None for value in existing))
        return [
            answer if value is None else from_stored(value) for answer, value in zip(answers, existing, strict=True)
        ]

    def delete_erased(self, until_ms: Mapping[str, int], is_answered: Callable[[str, int, int], bool]) -> None:
        """Delete the decisions of users (by id) on orders up to a time, once `is_answered` (topic, partition, offset).

        One that is claimed and not answered yet stays until it is: a batch that is tried again should find it.
        """
        for user, until in until_ms.items():
            events = sorted(self._index.find(user))
            values = self.client.pipeline([("GET", self._key(event)) for event in events])
            stored = zip(events, values, strict=True)
            self._delete(
                user, [event for event, value in stored if not value or is_deletable(value, until, is_answered)]
            )

    def delete_answered(self, events: Mapping[str, Sequence[str]]) -> None:
        """Delete the decisions on these orders of each user (by id), which are out."""
        for user, order_ids in events.items():
            self._delete(user, order_ids)

    def _delete(self, user: str, events: Sequence[str]) -> None:
        if events:
            self.client.pipeline([("DEL", self._key(event)) for event in events])
            self._index.remove(user, events)

    def _key(self, event_id: str) -> str:
        return f"{self.prefix}decision:{event_id}"


def is_deletable(value: bytes, until_ms: int, is_answered: Callable[[str, int, int], bool]) -> bool:
    """Whether a claim is of an order up to that time, and answered."""
    decision, scored = from_stored(value)
    return decision.ts_ms <= until_ms and is_answered(scored.topic, scored.partition, scored.offset)


def to_stored(decision: Decision, scored: ScoredRow) -> StoredDecision:
    return StoredDecision(**msgspec.structs.asdict(decision), scored=base64.b64encode(to_msgpack(scored)).decode())


def from_stored(value: bytes) -> tuple[Decision, ScoredRow]:
    stored = DECODE(value)
    fields = {name: getattr(stored, name) for name in Decision.__struct_fields__}
    return Decision(**fields), read_scored_row(base64.b64decode(stored.scored))
