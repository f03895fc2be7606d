"""Builds recommendation lists: candidates of a user, ranked by the model, with the scored row of each list."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from contract.events.model import UserEvent
from contract.features.declaration import Block
from contract.features.encoder import Encoder
from contract.features.packing import PackedBlock, pack_spans, split_rows
from contract.graphs import RECOMMEND
from contract.hashing import hash_id
from contract.messages import LIST_KIND, Recommendations, RecommendedItem, ScoredRow, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.experiment import ActiveModels, model_version, select_finite
from worker.model.onnx_model import Model, Scores, to_rows
from worker.ops import metrics
from worker.recommend.diversity import diversify
from worker.records.answers import LIST, Answer
from worker.retrieval.candidate_generator import FRESH, SOURCES, CandidateGenerator, UserCandidates

LoggedScores = dict[str, tuple[float, ...]]
LISTS_PER_RUN: Final = 32  # lists whose pairs go through the graph in one run: more only take more memory
NO_MODELS: Final = ActiveModels()


class ListRequest(NamedTuple):
    """A list to build for the user of this event, as the user is after the batch; `bought` items are left out."""

    arrival: Arrival
    bought: frozenset[str]

    @property
    def event(self) -> UserEvent:
        assert isinstance(self.arrival.event, UserEvent)
        return self.arrival.event

    @property
    def seed(self) -> int:
        """The same for the same event, whenever its list is built."""
        return hash_id(f"{self.arrival.topic} {self.event.event_id}")


class RankedLists(NamedTuple):
    """The items of many lists, one list after the other, each best first; list n ends at `ends[n]` (exclusive)."""

    ends: list[int]
    numbers: ItemNumbers
    items: list[RecommendedItem]
    scores: dict[str, list[float]]  # as they are logged: NaN for what is not finite


class ListBuilder:
    """Builds lists for many users at once: the user side once per user, then all pairs in one run of the graph.

    `models`: those that have the graph; a shadow is scored on the items of the finished lists.
    """

    def __init__(
        self,
        *,
        lists: ListSettings,
        encoder: Encoder,
        catalogue: Catalogue,
        candidate_generator: CandidateGenerator,
        models: ActiveModels = NO_MODELS,
    ) -> None:
        self._lists, self._encoder, self._catalogue = lists, encoder, catalogue
        self._candidate_generator = candidate_generator
        self._model, self._shadow = models.serving, models.shadow

    def build(self, requests: Sequence[ListRequest], memory: FoldedBatch, now_ms: int) -> list[Answer]:
        """A list for each request for which there is any candidate."""
        answers = list[Answer]()
        for start in range(0, len(requests), LISTS_PER_RUN):
            answers += self._build_chunk(requests[start : start + LISTS_PER_RUN], memory, now_ms)
        return answers

    def _build_chunk(self, requests: Sequence[ListRequest], memory: FoldedBatch, now_ms: int) -> list[Answer]:
        candidates = self._generate_candidates(requests, memory)
        blocks = self._encoder.encode_after(memory, [request.event for request in requests], RECOMMEND.event_groups)
        ranked = self._rank(candidates, self._score(blocks, candidates))
        shadow_scores = self._score_shadow(blocks, ranked)
        items = pack_spans(self._catalogue.gather_known_items(ranked.numbers), ranked.ends)
        answers, begin = list[Answer](), 0
        for request, groups, item_block, end in zip(requests, split_rows(blocks), items, ranked.ends, strict=True):
            if end > begin:
                message = self._build_message(request, tuple(ranked.items[begin:end]), now_ms)
                scores = {task: tuple(values[begin:end]) for task, values in ranked.scores.items()}
                shadow = select_finite(shadow_scores, range(begin, end))
                scored = self._build_scored_row(request, message, groups | {"item": item_block}, scores, shadow)
                answers.append(Answer(LIST, scored, message))
            begin = end
        metrics.DEGRADED_ANSWERS.labels(LIST.name).inc(0 if ranked.scores else len(answers))
        return answers

    def _generate_candidates(self, requests: Sequence[ListRequest], memory: FoldedBatch) -> list[UserCandidates]:
        users = [f"user:{request.event.user_id}" for request in requests]
        _, recent = memory.read_at(users, [request.event.ts_ms for request in requests])
        bought = [self._catalogue.find(sorted(request.bought)) for request in requests]
        return self._candidate_generator.generate(recent, bought, [request.seed for request in requests])

    def _score(self, blocks: dict[str, Block], candidates: list[UserCandidates]) -> Scores:
        """The scores of every pair (P,), user by user; empty without a model."""
        numbers = np.concatenate([user_candidates.numbers for user_candidates in candidates])
        if not self._model or not len(numbers):
            return {}
        counts = [len(user_candidates.numbers) for user_candidates in candidates]
        return self._run_model(self._model, blocks, numbers, counts)

    def _score_shadow(self, blocks: dict[str, Block], ranked: RankedLists) -> Scores:
        """The shadow's scores of the pairs on the lists; of the other candidates nothing is logged."""
        if not self._shadow or not len(ranked.numbers):
            return {}
        counts = np.diff(ranked.ends, prepend=0).tolist()
        return self._shadow.predict_shadow(
            len(ranked.numbers), lambda model: self._run_model(model, blocks, ranked.numbers, counts), step="refresh"
        )

    def _run_model(self, model: Model, blocks: dict[str, Block], numbers: ItemNumbers, counts: Sequence[int]) -> Scores:
        """The scores of items (P,), of which the first `counts[0]` are for the first user, and so on."""
        user = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        embeddings = self._catalogue.gather_known_embeddings(numbers, model)
        return model.run(RECOMMEND.name, blocks, item_part=embeddings, user=user)

    def _rank(self, candidates: Sequence[UserCandidates], scores: Scores) -> RankedLists:
        """The best candidates of each user."""
        values = self._value_candidates(scores, candidates)
        begins = np.cumsum([0, *(len(user_candidates.numbers) for user_candidates in candidates)]).tolist()
        best = [
            np.array(diversify(values[begin:end], user_candidates, self._catalogue, self._lists), np.int64) + begin
            for user_candidates, begin, end in zip(candidates, begins, begins[1:], strict=False)
        ]
        selected = np.concatenate(best)
        numbers = np.concatenate([user_candidates.numbers for user_candidates in candidates])[selected]
        sources = np.concatenate([user_candidates.sources for user_candidates in candidates])[selected]
        propensities = np.repeat(
            [user_candidates.propensity for user_candidates in candidates], [len(ranking) for ranking in best]
        )
        selected_scores = {task: task_scores[selected] for task, task_scores in scores.items()}
        columns = (
            self._catalogue.item_ids(numbers),
            values[selected].tolist(),
            to_rows(selected_scores, len(selected)),
            sources.tolist(),
            np.where(sources == FRESH, propensities, 1.0).tolist(),
        )
        items = [
            RecommendedItem(
                item_id=item, score=score, probability=probability, why=SOURCES[code], propensity=propensity
            )
            for item, score, probability, code, propensity in zip(*columns, strict=True)
        ]
        logged = {
            task: np.where(np.isfinite(task_scores), task_scores, np.float32(np.nan)).tolist()
            for task, task_scores in selected_scores.items()
        }
        return RankedLists(np.cumsum([len(ranking) for ranking in best]).tolist(), numbers, items, logged)

    def _value_candidates(self, scores: Scores, candidates: Sequence[UserCandidates]) -> npt.NDArray[np.float32]:
        """The value of each candidate (P,): by the model, else by its rank. What is not finite comes last."""
        if not scores:
            return np.concatenate([falling_values(len(user_candidates.numbers)) for user_candidates in candidates])
        value = scores["click"] + self._lists.purchase_value * scores.get("purchase", np.zeros(1, np.float32))
        return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)

    def _build_message(self, request: ListRequest, items: tuple[RecommendedItem, ...], now_ms: int) -> Recommendations:
        event = request.event
        metrics.LIST_AGE_SECONDS.observe(max(0, now_ms - event.ts_ms) / 1000)
        return Recommendations(
            user_id=event.user_id,
            recommendation_id=f"r{request.seed:016x}",
            items=items,
            model_version=model_version(self._model),
            computed_ms=now_ms,
            source_ms=event.ts_ms,
            degraded=not items[0].probability,
        )

    def _build_scored_row(
        self,
        request: ListRequest,
        recommendations: Recommendations,
        groups: dict[str, PackedBlock],
        scores: LoggedScores,
        shadow: LoggedScores,
    ) -> ScoredRow:
        """The scored row of a list: one row for user and context, one for each item on it."""
        builder = ScoredRowBuilder(
            self._encoder.features.digest, recommendations.model_version, model_version(self._shadow)
        )
        row = builder.build(
            LIST_KIND,
            request.arrival,
            groups,
            event_id=recommendations.recommendation_id,
            items=tuple(item.item_id for item in recommendations.items),
            scores=scores,
            shadow=shadow,
        )
        return replace(row, propensities=tuple(item.propensity for item in recommendations.items))


def falling_values(count: int) -> npt.NDArray[np.float32]:
    """Values (count,) from 1 down in equal steps: the first candidate is the best one."""
    return 1 - np.arange(count, dtype=np.float32) / np.float32(count)
