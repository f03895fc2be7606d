"""Claims: an order is decided once. Whoever decides first writes it down; every later life publishes what stands there.

A claim is the public `decision:{event_id}` itself: the Decision as JSON, with the scored row that goes with it in one
more field, so that both are published from the same bytes however often the batch is tried.
"""

import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from contract.rows import Decision, Scored, read_scored, to_json, to_msgpack
from worker import metrics
from worker.redis_client import RedisClient


class Claim(Decision, frozen=True, gc=False, kw_only=True):
    """A decision as it stands in Redis; `scored` is the scored row, MessagePack in base64."""

    scored: str


READ: Final = msgspec.json.Decoder(Claim).decode


class Claims:
    """The decisions in Redis, kept for `ttl_s`: longer than a crashed batch may wait to be tried again."""

    def __init__(self, *, client: RedisClient, prefix: str, ttl_s: int) -> None:
        self.client, self.prefix, self.ttl_s = client, prefix, ttl_s

    def claim(self, answers: Sequence[tuple[Decision, Scored]]) -> list[tuple[Decision, Scored]]:
        """What stands for each event after this call: the given answer, or the one that was there before."""
        items = [
            (f"{self.prefix}decision:{decision.event_id}", to_json(write(*a))) for a in answers for decision in a[:1]
        ]
        before = self.client.set_new(items, self.ttl_s)
        metrics.REPEATED.inc(sum(found is not None for found in before))
        return [answer if found is None else read(found) for answer, found in zip(answers, before, strict=True)]


def write(decision: Decision, scored: Scored) -> Claim:
    return Claim(**msgspec.structs.asdict(decision), scored=base64.b64encode(to_msgpack(scored)).decode())


def read(value: bytes) -> tuple[Decision, Scored]:
    claim = READ(value)
    fields = {name: getattr(claim, name) for name in Decision.__struct_fields__}
    return Decision(**fields), read_scored(base64.b64decode(claim.scored))
