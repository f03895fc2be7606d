"""Decides orders: probabilities by the model, then the shop's rules and thresholds."""

import numpy as np

from contract.events.model import Order, digest_contents
from contract.features.encoder import list_entities
from contract.features.packing import split_rows
from contract.graphs import DECIDE
from contract.messages import Decision, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from worker.model.experiment import ActiveModels, check_finite, model_version
from worker.model.onnx_model import Scores, to_logged_scores, to_rows
from worker.ops import metrics
from worker.records.answers import DECISION, Answer
from worker.records.batch import Batch
from worker.scoring.policy import DecisionPolicy, Outcome
from worker.scoring.scorer import ScoringResources


class OrderHandler:
    """Decides with one model and its bundle's thresholds; a shadow is scored and its scores are only logged.

    `is_canary`: the serving model can take over, so a score that is not finite is a failure.
    """

    def __init__(self, resources: ScoringResources, models: ActiveModels, is_canary: bool) -> None:
        settings = resources.settings
        self._encoder, self._model, self._shadow = resources.encoder, models.serving, models.shadow
        self._is_canary = is_canary
        self._policy = DecisionPolicy(
            rules=settings.rules,
            thresholds={**(self._model.manifest.thresholds if self._model else {}), **settings.thresholds},
            features=self._encoder.features,
        )

    def answer(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[Answer]:
        """A decision for each of the batch's orders `rows`."""
        blocks = self._encoder.encode_before(memory, rows, DECIDE.event_groups)
        scores: Scores = self._model.run(DECIDE.name, blocks) if self._model else {}
        if self._is_canary:
            check_finite(scores)
        outcomes, probabilities = self._policy.evaluate(len(rows), blocks, scores), to_rows(scores, len(rows))
        shadow_scores: Scores = {}
        if self._shadow:
            shadow_scores = self._shadow.predict_shadow(len(rows), lambda model: model.run(DECIDE.name, blocks))
        builder = ScoredRowBuilder(
            self._encoder.features.digest, model_version(self._model), model_version(self._shadow)
        )
        columns = (
            rows,
            outcomes,
            probabilities,
            to_logged_scores(probabilities),
            to_logged_scores(to_rows(shadow_scores, len(rows))),
            split_rows(blocks),
            list_entities(memory, rows),
            digest_contents([batch.arrivals[row].event for row in rows]),
        )
        answers = []
        for row, outcome, probability, row_scores, row_shadow, groups, entities, digest in zip(*columns, strict=True):
            arrival = batch.arrivals[row]
            scored = builder.build(
                "order",
                arrival,
                groups,
                scores=row_scores,
                shadow=row_shadow,
                entities=entities,
            )
            answer = Answer(DECISION, scored, self._build_decision(arrival, outcome, probability), digest)
            answer.encode_row()  # here, where its parts are in the processor's cache: after the batch it takes longer
            answer.encode_message()
            answers.append(answer)
        self._count(scores, len(rows))
        return answers

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
            metrics.DEGRADED_ANSWERS.labels(DECISION.name).inc(orders)
