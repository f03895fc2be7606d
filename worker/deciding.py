"""Deciding: what the orders lane says to orders."""

from collections.abc import Mapping, Sequence

import numpy as np

from contract.encoding import Encoder, Served, entities_of
from contract.events import Order
from contract.features import Block
from contract.memory import Memory
from contract.rows import Decision, Scored
from contract.settings import Settings
from contract.touches import Arrival
from worker import metrics
from worker.answers import Answers, answered_with, halve
from worker.batch import Batch
from worker.rules import Judge
from worker.runtime import Model, Scores

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

    def _decide(self, batch: Batch, rows: list[int], memory: Memory) -> list[tuple[Decision, Scored]]:
        blocks = self._encoder.before(memory, rows, GROUPS)
        scores = self._model.run("decide", blocks) if self._model else {}
        served = Served(self._encoder.features.digest, answered_with(self._model))
        decided = []
        for n, row in enumerate(rows):
            arrival = batch.arrivals[row]
            decision = self._decision(arrival, n, blocks, scores)
            one = {group: block.take([n]) for group, block in blocks.items()}
            probabilities = {task: (p,) for task, p in decision.probability.items()}
            scored = served.row("order", arrival, one, scores=probabilities, entities=entities_of(memory, row))
            decided.append((decision, scored))
        return decided

    def _decision(self, arrival: Arrival, n: int, blocks: Mapping[str, Block], scores: Scores) -> Decision:
        assert isinstance(arrival.event, Order)
        probability = {task: float(values[n]) for task, values in scores.items()}
        action, reasons = self._judge.judge(n, blocks, probability)
        for task, value in probability.items():
            metrics.NON_FINITE.labels(task).inc(not np.isfinite(value))
        if not self._model:
            metrics.DEGRADED.labels("decision").inc()
        return Decision(
            event_id=arrival.event.event_id,
            user_id=arrival.event.user_id,
            ts_ms=arrival.event.ts_ms,
            probability={task: value for task, value in probability.items() if np.isfinite(value)},
            action=action,
            reasons=tuple(reasons),
            model_version=answered_with(self._model),
            degraded=self._model is None,
        )

    def _make_judge(self) -> Judge:
        thresholds = {**(self._model.manifest.thresholds if self._model else {}), **self._settings.thresholds}
        return Judge(rules=self._settings.rules, thresholds=thresholds, features=self._encoder.features)
