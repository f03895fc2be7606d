"""A scorer that signs: its decisions tell by whom they were made."""

from collections.abc import Sequence

from contract.memory import Memory
from contract.rows import Decision, Scored
from contract.touches import Arrival
from worker.answers import Answers, Scorer
from worker.batch import Batch
from worker.challenger import Challenger
from worker.runtime import Model


class Signing(Scorer):
    """Approves every order, and signs its decisions with the name of its life."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scored, self.last = list[str](), list[str]()  # ids of all events, and of those of the last batch

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        """It needs none."""

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        arrivals = [batch.arrivals[row] for row in rows]
        self.last = [arrival.event.event_id for arrival in arrivals]
        self.scored += self.last
        return Answers(decisions=[self._sign(arrival) for arrival in arrivals])

    def refresh(self, memory: Memory, now_ms: int) -> Answers:
        return Answers()

    def _sign(self, arrival: Arrival) -> tuple[Decision, Scored]:
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
        scored = Scored(
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
