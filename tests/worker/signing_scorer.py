"""A scorer that signs: its decisions tell by whom they were made."""

from collections.abc import Sequence

from contract.messages import Decision, ScoredRow
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from worker.model.experiment import TrialModel
from worker.model.onnx_model import Model
from worker.records.batch import Batch
from worker.scoring.results import BatchResults, Scorer


class SigningScorer(Scorer):
    """Approves every order, and signs its decisions with the name of its life."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scored, self.last_scored = list[str](), list[str]()  # ids of all events, and of those of the last batch

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """It needs none."""

    def entities_to_read(self, batch: Batch, now_ms: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        arrivals = [batch.arrivals[row] for row in rows]
        self.last_scored = [arrival.event.event_id for arrival in arrivals]
        self.scored += self.last_scored
        return BatchResults(decisions=[self._sign(arrival) for arrival in arrivals])

    def refresh(self, memory: FoldedBatch, now_ms: int) -> BatchResults:
        return BatchResults()

    def _sign(self, arrival: Arrival) -> tuple[Decision, ScoredRow]:
        event = arrival.event
        user_id = getattr(event, "user_id", "")
        decision = Decision(
            event_id=event.event_id,
            user_id=user_id,
            ts_ms=event.ts_ms,
            probability={},
            action="approve",
            reasons=(),
            model_version=self.name,
        )
        scored = ScoredRow(
            event_id=event.event_id,
            kind="order",
            user_id=user_id,
            ts_ms=event.ts_ms,
            topic=arrival.topic,
            partition=arrival.partition,
            offset=arrival.offset,
            model_version=self.name,
            features="",
            groups={},
        )
        return decision, scored
