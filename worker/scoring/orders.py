"""Deciding: what the orders lane says to orders."""

from collections.abc import Sequence

import numpy as np

from contract.events import Order
from contract.features.encoder import Encoder, list_entities
from contract.features.packing import split_rows
from contract.messages import Decision, ScoredRow, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from contract.settings import Settings
from worker.model.experiment import ActiveModels, TrialModel, check_finite, trial_version
from worker.model.onnx_model import Model, Scores, to_logged_scores, to_rows
from worker.ops import metrics
from worker.records.batch import Batch
from worker.scoring.canary_router import CanaryRouter
from worker.scoring.policy import DecisionPolicy, Outcome
from worker.scoring.results import BatchResults, model_version

GROUPS = ("user", "order", "context")


class OrderScorer:
    """Gives each order a decision: probabilities by the model, then rules and thresholds."""

    def __init__(self, *, settings: Settings, encoder: Encoder) -> None:
        self._settings, self._encoder = settings, encoder
        self._router = CanaryRouter(self._build_handler(ActiveModels()))

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        models = ActiveModels(model, trial_model).supporting("decide")
        canary = models.canary
        canary_handler = (canary, self._build_handler(ActiveModels(canary.model), is_canary=True)) if canary else None
        self._router = CanaryRouter(self._build_handler(models), canary_handler)

    def entities_to_read(self, batch: Batch, now_ms: int) -> list[str]:
        return []

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        answers = BatchResults()
        orders = [row for row in rows if isinstance(batch.arrivals[row].event, Order)]
        self._router.answer(
            orders,
            batch.user_id,
            lambda handler, chunk: answers.decisions.extend(handler.decide(batch, chunk, memory)),
            lambda row, error, n: answers.rejects.append(batch.to_reject(batch.arrivals[row], error, n)),
        )
        return answers

    def refresh(self, memory: FoldedBatch, now_ms: int) -> BatchResults:
        return BatchResults()

    def _build_handler(self, models: ActiveModels, *, is_canary: bool = False) -> "OrderHandler":
        return OrderHandler(settings=self._settings, encoder=self._encoder, models=models, is_canary=is_canary)


class OrderHandler:
    """Decides with one model and the thresholds that come with it; a shadow is heard and not heeded.

    `is_tried`: another model can stand in for this one, so a number that is not finite is a failure.
    """

    def __init__(self, *, settings: Settings, encoder: Encoder, models: ActiveModels, is_canary: bool = False) -> None:
        self._encoder, self._model, self._shadow, self._is_canary = encoder, models.serving, models.shadow, is_canary
        thresholds = {**(self._model.manifest.thresholds if self._model else {}), **settings.thresholds}
        self._policy = DecisionPolicy(rules=settings.rules, thresholds=thresholds, features=encoder.features)

    def decide(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[tuple[Decision, ScoredRow]]:
        """A decision for each of the batch's orders `rows`, with its scored row."""
        blocks = self._encoder.encode_before(memory, rows, GROUPS)
        scores: Scores = self._model.run("decide", blocks) if self._model else {}
        if self._is_canary:
            check_finite(scores)
        outcomes, probabilities = self._policy.evaluate(len(rows), blocks, scores), to_rows(scores, len(rows))
        shadow_scores = (
            self._shadow.predict_shadow(len(rows), lambda model: model.run("decide", blocks)) if self._shadow else {}
        )
        served = ScoredRowBuilder(
            self._encoder.features.digest, model_version(self._model), trial_version(self._shadow)
        )
        columns = (
            rows,
            outcomes,
            probabilities,
            to_rows(shadow_scores, len(rows)),
            split_rows(blocks),
            list_entities(memory, rows),
        )
        decisions = []
        for row, outcome, probability, row_shadow, groups, entities in zip(*columns, strict=True):
            arrival = batch.arrivals[row]
            scored = served.build(
                "order",
                arrival,
                groups,
                scores=to_logged_scores(probability),
                shadow=to_logged_scores(row_shadow),
                entities=entities,
            )
            decisions.append((self._build_decision(arrival, outcome, probability), scored))
        self._count(scores, len(rows))
        return decisions

    def _build_decision(self, arrival: Arrival, outcome: Outcome, probability: dict[str, float]) -> Decision:
        order = arrival.event
        assert isinstance(order, Order)
        return Decision(
            event_id=order.event_id,
            user_id=order.user_id,
            ts_ms=order.ts_ms,
            probability=probability,
            action=outcome.action,
            reasons=outcome.reasons,
            model_version=model_version(self._model),
            degraded=self._model is None,
        )

    def _count(self, scores: Scores, orders: int) -> None:
        for task, values in scores.items():
            metrics.NON_FINITE_SCORES.labels(task).inc(int(np.sum(~np.isfinite(values))))
        if not self._model:
            metrics.DEGRADED_ANSWERS.labels("decision").inc(orders)
