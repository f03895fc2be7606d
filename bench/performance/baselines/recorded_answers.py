"""Records the answers that a worker has published and cached, for the bare loop to repeat."""

import itertools
import json
from typing import Any, Final

import redis

from bench.performance.baselines.bare import RecordedAnswer
from bench.performance.measure.environment import BenchEnvironment
from contract.messages import ScoredRow, read_scored_row
from testkit.environment.kafka_log import KafkaLog

ANSWERS_MAX: Final = 500
ROWS_MAX: Final = 40 * ANSWERS_MAX  # scored rows to read; lists are rare among them
KINDS: Final = {"click": "clicks", "order": "orders", "recommendation": "lists"}


class AnswerRecorder:
    """Reads the answers of one run; raises RuntimeError if Redis lacks a published answer."""

    def __init__(self, environment: BenchEnvironment) -> None:
        self._environment, self._log = environment, KafkaLog(bootstrap=environment.kafka.bootstrap)
        self._store: Any = redis.Redis(port=environment.redis.port)

    def read_answers(self, decides: bool) -> dict[str, list[RecordedAnswer]]:
        """Up to `ANSWERS_MAX` of each kind: `clicks`, `orders` and `lists`."""
        answers, decisions = dict[str, list[RecordedAnswer]](), self._read_decisions() if decides else {}
        for record in itertools.islice(self._log.read(self._environment.topics.scored), ROWS_MAX):
            value = record.value or b""
            scored = read_scored_row(value)
            same_kind = answers.setdefault(KINDS[scored.kind], [])
            if len(same_kind) < ANSWERS_MAX and (scored.kind != "order" or scored.event_id in decisions):
                produced = [("scored", value)]
                if scored.kind == "order":
                    produced.append(("decisions", decisions[scored.event_id]))
                same_kind.append(RecordedAnswer(produced, self._read_cached(scored)))
        return answers

    def _read_decisions(self) -> dict[str, bytes]:
        decisions = itertools.islice(self._log.read(self._environment.topics.decisions), ANSWERS_MAX)
        return {json.loads(record.value or b"")["event_id"]: record.value or b"" for record in decisions}

    def _read_cached(self, scored: ScoredRow) -> bytes:
        """The value in Redis: an order's decision, or the user's present list."""
        match scored.kind:
            case "order":
                key = f"decision:{scored.event_id}"
            case "recommendation":
                key = f"rec:{scored.user_id}"
            case _:
                return b""
        value: bytes | None = self._store.get(self._environment.redis_prefix + key)
        if value is None:
            raise RuntimeError(f"Redis should hold every published answer. Found no {key}.")
        return value
