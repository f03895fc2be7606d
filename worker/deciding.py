"""Deciding: what the orders lane says to orders."""

from collections.abc import Sequence

import numpy as np

from contract.encoding import Encoder, Served, apart, entities_of
from contract.events import Order
from contract.memory import Memory
from contract.rows import Decision, Scored
from contract.settings import Settings
from contract.touches import Arrival
from worker import metrics
from worker.answers import Answers, answered_with, halve
from worker.batch import Batch
from worker.rules import Judge, Judged
from worker.runtime import Model, Scores, by_row

GROUPS = ("user", "order", "context")


class Decider:
    """Gives each order a decision: probabilities by the model, then rules and thresholds."""

    def __init__(self, *, settings: Settings, encoder: Encoder) -> None:
        self._settings, self._encoder = settings, encoder
        self._model: Model | None = None
        self._judge = self._make_judge()

    def serve(self, model: Model | None) -> None:
        self._model = model if model and model.can("decide") else None
        self._judge = self._make_judge()

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        answers = Answers()
        orders = [row for row in rows if isinstance(batch.arrivals[row].event, Order)]
        halve(
            orders,
            lambda some: answers.decisions.extend(self._decide(batch, some, memory)),
            lambda row, error, n: answers.rejects.append(batch.reject(batch.arrivals[row], error, n)),
        )
        return answers

    def refresh(self, memory: Memory, now_ms: int) -> Answers:
        return Answers()

    def _decide(self, batch: Batch, rows: list[int], memory: Memory) -> list[tuple[Decision, Scored]]:
        blocks = self._encoder.before(memory, rows, GROUPS)
        scores: Scores = self._model.run("decide", blocks) if self._model else {}
        verdicts, probabilities = self._judge.judge(len(rows), blocks, scores), by_row(scores, len(rows))
        served = Served(self._encoder.features.digest, answered_with(self._model))
        groups, entities = apart(blocks), entities_of(memory, rows)
        decided = []
        for n, row in enumerate(rows):
            arrival, own = batch.arrivals[row], probabilities[n]
            row_scores = {task: (value,) for task, value in own.items()}
            scored = served.row("order", arrival, groups[n], scores=row_scores, entities=entities[n])
            decided.append((self._decision(arrival, verdicts[n], own), scored))
        self._count(scores, len(rows))
        return decided

    def _decision(self, arrival: Arrival, verdict: Judged, probability: dict[str, float]) -> Decision:
        order = arrival.event
        assert isinstance(order, Order)
        return Decision(
            event_id=order.event_id,
            user_id=order.user_id,
            ts_ms=order.ts_ms,
            probability=probability,
            action=verdict.action,
            reasons=verdict.reasons,
            model_version=answered_with(self._model),
            degraded=self._model is None,
        )

    def _count(self, scores: Scores, orders: int) -> None:
        for task, values in scores.items():
            metrics.NON_FINITE.labels(task).inc(int(np.sum(~np.isfinite(values))))
        if not self._model:
            metrics.DEGRADED.labels("decision").inc(orders)

    def _make_judge(self) -> Judge:
        thresholds = {**(self._model.manifest.thresholds if self._model else {}), **self._settings.thresholds}
        return Judge(rules=self._settings.rules, thresholds=thresholds, features=self._encoder.features)
