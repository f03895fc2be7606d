"""Answers: what a batch is told, and how it travels. Both lanes' scorers make them."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from contract.messages import Decision, Ranking, Recommendations, ScoredRow, to_json, to_msgpack
from contract.profiles.store import FoldedBatch
from contract.settings import TopicSettings
from worker.kafka.producer import OutgoingRecord
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.records.batch import Batch, Reject

log = logging.getLogger(__name__)


@dataclass(slots=True)
class BatchResults:
    """Everything that one batch makes us say, each with its scored row."""

    decisions: list[tuple[Decision, ScoredRow]] = field(default_factory=list)
    lists: list[tuple[Recommendations, ScoredRow]] = field(default_factory=list)
    rankings: list[tuple[Ranking, ScoredRow]] = field(default_factory=list)
    scored: list[ScoredRow] = field(default_factory=list)  # rows without an answer of their own
    rejects: list[Reject] = field(default_factory=list)

    def extend(self, later: "BatchResults") -> None:
        """What was made later comes after what was made before."""
        for name in BatchResults.__slots__:
            getattr(self, name).extend(getattr(later, name))

    def to_records(self, topics: TopicSettings) -> list[OutgoingRecord]:
        """The records to publish. Dead letters travel apart, since they also come from records that are no events."""
        records = [OutgoingRecord(topics.decisions, d.user_id, to_json(d)) for d, _ in self.decisions]
        records += [OutgoingRecord(topics.rankings, r.user_id, to_json(r)) for r, _ in self.rankings]
        rows = [
            *(s for _, s in self.decisions),
            *(s for _, s in self.lists),
            *(s for _, s in self.rankings),
            *self.scored,
        ]
        return records + [OutgoingRecord(topics.scored, row.user_id, to_msgpack(row)) for row in rows]

    def record_metrics(self) -> None:
        metrics.ANSWERS.labels("decision").inc(len(self.decisions))
        metrics.ANSWERS.labels("list").inc(len(self.lists))
        metrics.ANSWERS.labels("ranking").inc(len(self.rankings))
        metrics.ANSWERS.labels("click").inc(len(self.scored))
        for decision, _ in self.decisions:
            metrics.DECISIONS.labels(decision.action).inc()


class Scorer(Protocol):
    """What a lane says to its events; knows nothing of Kafka, Redis or the clock."""

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """Answer with this model from now on (None: with rules and popular items), and with one on trial beside it."""

    def entities_to_read(self, batch: Batch, now_ms: int) -> list[str]:
        """Entities to read with the batch although none of its arrivals touches them."""

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        """Answers to the batch's arrivals `rows`."""

    def refresh(self, memory: FoldedBatch, now_ms: int) -> BatchResults:
        """What is due by then to users who were read with the batch."""


def bisect_failures(
    rows: list[int], answer: Callable[[list[int]], None], on_bad_row: Callable[[int, Exception, int], None]
) -> None:
    """Answer rows together; if that fails, in halves, until the guilty row is alone and costs no other its answer."""
    pending = [(rows, 1)]
    while pending:
        chunk, attempts = pending.pop()
        if not chunk:
            continue
        try:
            answer(chunk)
        except Exception as error:
            log.warning("Scoring %d events failed, trying the halves: %s", len(chunk), error)
            if len(chunk) == 1:
                on_bad_row(chunk[0], error, attempts)
                continue
            half = len(chunk) // 2
            pending += [(chunk[half:], attempts + 1), (chunk[:half], attempts + 1)]


def model_version(model: Model | None) -> str:
    return model.version if model else ""
