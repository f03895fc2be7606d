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
from worker.answers import Answers, answered_with
from worker.batch import Batch
from worker.challenger import Challenger, Lineup, check_finite, version_of
from worker.desks import Desks
from worker.rules import Judge, Judged
from worker.runtime import Model, Scores, by_row, single

GROUPS = ("user", "order", "context")


class Decider:
    """Gives each order a decision: probabilities by the model, then rules and thresholds."""

    def __init__(self, *, settings: Settings, encoder: Encoder) -> None:
        self._settings, self._encoder = settings, encoder
        self._desks = Desks(self._desk(Lineup()))

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        lineup = Lineup(model, challenger).able("decide")
        canary = lineup.canary
        tried = (canary, self._desk(Lineup(canary.model), is_tried=True)) if canary else None
        self._desks = Desks(self._desk(lineup), tried)

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        answers = Answers()
        orders = [row for row in rows if isinstance(batch.arrivals[row].event, Order)]
        self._desks.answer(
            orders,
            batch.user,
            lambda desk, some: answers.decisions.extend(desk.decide(batch, some, memory)),
            lambda row, error, n: answers.rejects.append(batch.reject(batch.arrivals[row], error, n)),
        )
        return answers

    def refresh(self, memory: Memory, now_ms: int) -> Answers:
        return Answers()

    def _desk(self, lineup: Lineup, *, is_tried: bool = False) -> "Desk":
        return Desk(settings=self._settings, encoder=self._encoder, lineup=lineup, is_tried=is_tried)


class Desk:
    """Decides with one model and the thresholds that come with it; a shadow is heard and not heeded.

    `is_tried`: another model can stand in for this one, so a number that is not finite is a failure.
    """

    def __init__(self, *, settings: Settings, encoder: Encoder, lineup: Lineup, is_tried: bool = False) -> None:
        self._encoder, self._model, self._shadow, self._is_tried = encoder, lineup.model, lineup.shadow, is_tried
        thresholds = {**(self._model.manifest.thresholds if self._model else {}), **settings.thresholds}
        self._judge = Judge(rules=settings.rules, thresholds=thresholds, features=encoder.features)

    def decide(self, batch: Batch, rows: list[int], memory: Memory) -> list[tuple[Decision, Scored]]:
        """A decision for each of the batch's orders `rows`, with its scored row."""
        blocks = self._encoder.before(memory, rows, GROUPS)
        scores: Scores = self._model.run("decide", blocks) if self._model else {}
        if self._is_tried:
            check_finite(scores)
        verdicts, probabilities = self._judge.judge(len(rows), blocks, scores), by_row(scores, len(rows))
        aside = self._shadow.say(len(rows), lambda model: model.run("decide", blocks)) if self._shadow else {}
        served = Served(self._encoder.features.digest, answered_with(self._model), version_of(self._shadow))
        columns = (rows, verdicts, probabilities, by_row(aside, len(rows)), apart(blocks), entities_of(memory, rows))
        decided = []
        for row, verdict, own, beside, groups, entities in zip(*columns, strict=True):
            arrival = batch.arrivals[row]
            scored = served.row("order", arrival, groups, scores=single(own), shadow=single(beside), entities=entities)
            decided.append((self._decision(arrival, verdict, own), scored))
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
