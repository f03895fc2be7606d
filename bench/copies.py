"""Copies of real answers, for the bare loop to give: what a worker has just published and cached."""

import itertools
import json
from typing import Any, Final

import redis

from bench.bare import Answer
from bench.kafka_log import KafkaLog
from bench.track import Track
from contract.messages import ScoredRow, read_scored_row

COPIES: Final = 500
LOOKED_AT: Final = 40 * COPIES  # scored rows, among which lists are rare
KINDS: Final = {"click": "clicks", "order": "orders", "recommendation": "lists"}


class Copier:
    """Reads the answers of one run; raises RuntimeError where Redis has lost what was published."""

    def __init__(self, track: Track) -> None:
        self._track, self._log = track, KafkaLog(bootstrap=track.kafka.bootstrap)
        self._store: Any = redis.Redis(port=track.redis.port)

    def answers(self, decides: bool) -> dict[str, list[Answer]]:
        """Up to `COPIES` of each kind: `clicks`, `orders` and `lists`."""
        found, decided = dict[str, list[Answer]](), self._decided() if decides else {}
        for one in itertools.islice(self._log.read(self._track.topics.scored), LOOKED_AT):
            value = one.value or b""
            scored = read_scored_row(value)
            of = found.setdefault(KINDS[scored.kind], [])
            if len(of) < COPIES and (scored.kind != "order" or scored.event_id in decided):
                produced = [("scored", value)]
                if scored.kind == "order":
                    produced.append(("decisions", decided[scored.event_id]))
                of.append(Answer(produced, self._cached(scored)))
        return found

    def _decided(self) -> dict[str, bytes]:
        decisions = itertools.islice(self._log.read(self._track.topics.decisions), COPIES)
        return {json.loads(one.value or b"")["event_id"]: one.value or b"" for one in decisions}

    def _cached(self, scored: ScoredRow) -> bytes:
        """What Redis has of it: the claim of an order, the user's list as it is by now."""
        match scored.kind:
            case "order":
                key = f"decision:{scored.event_id}"
            case "recommendation":
                key = f"rec:{scored.user_id}"
            case _:
                return b""
        value: bytes | None = self._store.get(self._track.redis_prefix + key)
        if value is None:
            raise RuntimeError(f"Redis should hold what was published. Found no {key}.")
        return value
