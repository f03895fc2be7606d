"""Answers: what a batch is told, and how it travels. Both lanes' scorers make them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contract.memory import Memory
from contract.rows import Decision, Ranking, Recommendations, Scored, to_json, to_msgpack
from contract.settings import Topics
from worker import metrics
from worker.batch import Batch, Reject
from worker.challenger import Challenger
from worker.publisher import Outgoing
from worker.runtime import Model

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answers:
    """Everything that one batch makes us say, each with its scored row."""

    decisions: list[tuple[Decision, Scored]] = field(default_factory=list)
    lists: list[tuple[Recommendations, Scored]] = field(default_factory=list)
    rankings: list[tuple[Ranking, Scored]] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)  # rows without an answer of their own
    rejects: list[Reject] = field(default_factory=list)

    def add(self, later: "Answers") -> None:
        """What was made later comes after what was made before."""
        for name in Answers.__slots__:
            getattr(self, name).extend(getattr(later, name))

    def outgoing(self, topics: Topics) -> list[Outgoing]:
        """The records to publish. Dead letters travel apart, since they also come from records that are no events."""
        records = [Outgoing(topics.decisions, d.user_id, to_json(d)) for d, _ in self.decisions]
        records += [Outgoing(topics.rankings, r.user_id, to_json(r)) for r, _ in self.rankings]
        rows = [
            *(s for _, s in self.decisions),
            *(s for _, s in self.lists),
            *(s for _, s in self.rankings),
            *self.scored,
        ]
        return records + [Outgoing(topics.scored, row.user_id, to_msgpack(row)) for row in rows]

    def count(self) -> None:
        metrics.ANSWERS.labels("decision").inc(len(self.decisions))
        metrics.ANSWERS.labels("list").inc(len(self.lists))
        metrics.ANSWERS.labels("ranking").inc(len(self.rankings))
        metrics.ANSWERS.labels("click").inc(len(self.scored))
        for decision, _ in self.decisions:
            metrics.DECISIONS.labels(decision.action).inc()


class Scorer(Protocol):
    """What a lane says to its events; knows nothing of Kafka, Redis or the clock."""

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        """Answer with this model from now on (None: with rules and popular items), and with one on trial beside it."""

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        """Entities to read with the batch although none of its arrivals touches them."""

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        """Answers to the batch's arrivals `rows`."""

    def refresh(self, memory: Memory, now_ms: int) -> Answers:
        """What is due by then to users who were read with the batch."""


def halve(rows: list[int], answer: Callable[[list[int]], None], guilty: Callable[[int, Exception, int], None]) -> None:
    """Answer rows together; if that fails, in halves, until the guilty row is alone and costs no other its answer."""
    pending = [(rows, 1)]
    while pending:
        some, attempts = pending.pop()
        if not some:
            continue
        try:
            answer(some)
        except Exception as error:
            log.warning("Scoring %d events failed, trying the halves: %s", len(some), error)
            if len(some) == 1:
                guilty(some[0], error, attempts)
                continue
            half = len(some) // 2
            pending += [(some[half:], attempts + 1), (some[:half], attempts + 1)]


def answered_with(model: Model | None) -> str:
    return model.version if model else ""
