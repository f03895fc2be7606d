"""Claims: an order is decided once. Whoever decides first writes it down; every later life publishes what stands there.

A claim is the public `decision:{event_id}` itself: the Decision as JSON, with the scored row that goes with it in one
more field, so that both are published from the same bytes however often the batch is tried.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from contract.rows import Decision, Scored, read_scored, to_json, to_msgpack
from worker import metrics
from worker.redis_client import RedisClient
from worker.traces import Traces


class Claim(Decision, frozen=True, gc=False, kw_only=True):
    """A decision as it stands in Redis; `scored` is the scored row, MessagePack in base64."""

    scored: str


READ: Final = msgspec.json.Decoder(Claim).decode


class Claims:
    """The decisions in Redis, kept for `ttl_s`: longer than a crashed batch may wait to be tried again."""

    def __init__(self, *, client: RedisClient, prefix: str, ttl_s: int) -> None:
        self.client, self.prefix, self.ttl_s = client, prefix, ttl_s
        self._traces = Traces(client=client, prefix=f"{prefix}decided:", ttl_s=ttl_s)

    def claim(self, answers: Sequence[tuple[Decision, Scored]]) -> list[tuple[Decision, Scored]]:
        """What stands for each event after this call: the given answer, or the one that was there before."""
        items = [(self._key(answer[0].event_id), to_json(write(*answer))) for answer in answers]
        notes = self._traces.notes((decision.user_id, decision.event_id) for decision, _ in answers)
        before = self.client.set_new(items, self.ttl_s, notes)
        metrics.REPEATED.inc(sum(found is not None for found in before))
        return [answer if found is None else read(found) for answer, found in zip(answers, before, strict=True)]

    def forget(self, until_ms: Mapping[str, int], is_answered: Callable[[str, int, int], bool]) -> None:
        """Delete the decisions of users (by id) on orders up to a time, once `is_answered` (topic, partition, offset).

        One that is claimed and not answered yet stays until it is: a batch that is tried again should find it.
        """
        for user, until in until_ms.items():
            events = sorted(self._traces.find(user))
            found = self.client.pipeline([("GET", self._key(event)) for event in events])
            told = zip(events, found, strict=True)
            self._delete(user, [event for event, value in told if not value or covered(value, until, is_answered)])

    def forget_answered(self, events: Mapping[str, Sequence[str]]) -> None:
        """Delete the decisions on these orders of each user (by id), which are out."""
        for user, of in events.items():
            self._delete(user, of)

    def _delete(self, user: str, events: Sequence[str]) -> None:
        if events:
            self.client.pipeline([("DEL", self._key(event)) for event in events])
            self._traces.drop(user, events)

    def _key(self, event_id: str) -> str:
        return f"{self.prefix}decision:{event_id}"


def covered(value: bytes, until_ms: int, is_answered: Callable[[str, int, int], bool]) -> bool:
    """Whether a claim is of an order up to that time, and answered."""
    decision, scored = read(value)
    return decision.ts_ms <= until_ms and is_answered(scored.topic, scored.partition, scored.offset)


def write(decision: Decision, scored: Scored) -> Claim:
    return Claim(**msgspec.structs.asdict(decision), scored=base64.b64encode(to_msgpack(scored)).decode())


def read(value: bytes) -> tuple[Decision, Scored]:
    claim = READ(value)
    fields = {name: getattr(claim, name) for name in Decision.__struct_fields__}
    return Decision(**fields), read_scored(base64.b64decode(claim.scored))
