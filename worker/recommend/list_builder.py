"""Builds recommendation lists: candidates of a user, ranked by the model, with the scored row of each list."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from contract.events.model import UserEvent
from contract.features.declaration import Block
from contract.features.encoder import Encoder
from contract.features.packing import pack_spans, split_rows
from contract.graphs import RECOMMEND
from contract.hashing import hash_id
from contract.messages import LIST_KIND, Recommendations, RecommendedItem, ScoredRowBuilder
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.experiment import ActiveModels, model_version, select_finite
from worker.model.onnx_model import Model, Scores, to_rows
from worker.ops import metrics
from worker.recommend.ranked_lists import (
    RankedLists,
    SelectedItems,
    falling_values,
    log_list,
    round_to_float32,
    softmax,
    split_users,
)
from worker.records.answers import LIST, Answer
from worker.retrieval.candidate_generator import CandidateGenerator, UserCandidates
from worker.retrieval.histories import BatchHistories, from_recent, prepend_recent
from worker.retrieval.kernels import FRESH, SOURCES
from worker.rules.caps import list_soft_caps
from worker.rules.hiding import Hidden, find_hidden
from worker.rules.kind_rules import NAME_SEPARATOR, KindRules
from worker.rules.list_rules import ListRules

LoggedScores = dict[str, tuple[float, ...]]
PAIRS_PER_RUN: Final = 4_000  # pairs that go through the graph in one run: more leave the processor's cache
NO_MODELS: Final = ActiveModels()
NO_PURCHASES: Final[Mapping[str, int]] = MappingProxyType({})


class ListRequest(NamedTuple):
    """A list to build for the user of this event, as the user is after the batch.

    `bought` since the last list: left out unless rules say which bought items are hidden, and for how long.
    `purchases`: what the history of the user may lack, with the times (ms). `is_again`: another list of this event may
    have been logged.
    """

    arrival: Arrival
    bought: frozenset[str]
    is_again: bool = False
    purchases: Mapping[str, int] = NO_PURCHASES

    @property
    def event(self) -> UserEvent:
        assert isinstance(self.arrival.event, UserEvent)
        return self.arrival.event

    @property
    def seed(self) -> int:
        """The same for the same event, whenever its list is built."""
        return hash_id(f"{self.arrival.topic} {self.event.event_id}{' again' if self.is_again else ''}")


class ListBuilder:
    """Builds lists for many users at once: the user side once per user, then their pairs in large runs of the graph.

    Candidates that a ranker scored are in its order, and the graph scores the items of the finished lists alone; others
    are in the order of their value by the graph. `models`: those that have the graph; a shadow is scored on the items
    of the finished lists. `version`: of the bundle, where its model has no such graph.
    """

    def __init__(
        self,
        *,
        lists: ListSettings,
        encoder: Encoder,
        catalogue: Catalogue,
        candidate_generator: CandidateGenerator,
        models: ActiveModels = NO_MODELS,
        version: str = "",
        rules: ListRules | None = None,
    ) -> None:
        self._lists, self._encoder, self._catalogue = lists, encoder, catalogue
        self._candidate_generator = candidate_generator
        self._rules = rules or ListRules(catalogue, encoder.features)
        self._soft_caps = list_soft_caps(lists.category_max, lists.seller_max)
        self._model, self._shadow = models.serving, models.shadow
        self._version = model_version(models.serving) or version
        self._row_builder = ScoredRowBuilder(encoder.features.digest, self._version, model_version(models.shadow))

    def build(
        self, requests: Sequence[ListRequest], memory: FoldedBatch, now_ms: int, histories: BatchHistories | None = None
    ) -> list[Answer]:
        """A list for each request for which there is any candidate, or for which rules leave none: an empty list.

        `histories`: of their users before the batch; without them a history is the recent items of the profile.
        """
        if not requests:
            return []
        self._rules.refresh(now_ms)
        seeds = [request.seed for request in requests]
        candidates = self._generate_candidates(requests, seeds, memory, histories)
        blocks = self._encoder.encode_after(memory, [request.event for request in requests], RECOMMEND.event_groups)
        ranked = self._rank(candidates, blocks)
        shadow_scores = self._score_shadow(blocks, ranked)
        items = pack_spans(self._catalogue.gather_known_items(ranked.numbers), ranked.ends)
        answers, begin = list[Answer](), 0
        rules = self._rules.of("personal")
        per_list = zip(requests, seeds, split_rows(blocks), items, ranked.ends, ranked.pinned, strict=True)
        for request, seed, groups, item_block, end, pinned in per_list:
            if end > begin or (rules.removes and len(self._catalogue)):
                event = request.event
                if end > begin:
                    groups["item"] = item_block
                message = Recommendations(
                    user_id=event.user_id,
                    recommendation_id=f"r{seed:016x}",
                    items=tuple(ranked.items[begin:end]),
                    model_version=self._version,
                    computed_ms=now_ms,
                    source_ms=event.ts_ms,
                    degraded=not ranked.is_by_model,
                    rule=UNSET if end > begin else rules.removing,
                )
                scored = self._row_builder.build(
                    LIST_KIND,
                    request.arrival,
                    groups,
                    event_id=message.recommendation_id,
                    items=tuple(ranked.item_ids[begin:end]),
                    scores={task: tuple(values[begin:end]) for task, values in ranked.scores.items()},
                    shadow=select_finite(shadow_scores, range(begin, end)) if shadow_scores else None,
                )
                answers.append(Answer(LIST, log_list(scored, ranked, begin, end, pinned), message))
            begin = end
        count_rules(ranked, rules)
        metrics.DEGRADED_ANSWERS.labels(LIST.name).inc(0 if ranked.is_by_model else len(answers))
        return answers

    def _generate_candidates(
        self,
        requests: Sequence[ListRequest],
        seeds: Sequence[int],
        memory: FoldedBatch,
        histories: BatchHistories | None,
    ) -> list[UserCandidates]:
        rules = self._rules.of("personal")
        events = [request.event for request in requests]
        ts_ms = np.array([event.ts_ms for event in events], np.int64)
        _, recent = memory.read_at([f"user:{event.user_id}" for event in events], ts_ms.tolist())
        latest = from_recent(recent, ts_ms)
        if histories:
            latest = prepend_recent(histories.take([event.user_id for event in events]), recent, ts_ms)
        hidden = Hidden.of_items([self._catalogue.find(sorted(request.bought)) for request in requests])
        if rules.hides:
            ruled = find_hidden(rules.hides, latest, ts_ms, [r.purchases for r in requests], self._catalogue)
            hidden = ruled if rules.hides_bought else hidden.join(ruled)
        return self._candidate_generator.generate(latest, hidden, seeds, ts_ms, rules)

    def _score(self, blocks: dict[str, Block], numbers: ItemNumbers, counts: Sequence[int]) -> Scores:
        """The scores of items (P,), of which the first `counts[0]` are for the first user; empty without a model."""
        if not self._model or not len(numbers):
            return {}
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
        outputs, begin = list[Scores](), 0
        for first, last in split_users(counts, PAIRS_PER_RUN):
            user_counts = counts[first:last]
            end = begin + sum(user_counts)
            outputs.append(
                model.run(
                    RECOMMEND.name,
                    {group: Block(block.numbers[first:last], block.ids[first:last]) for group, block in blocks.items()},
                    item_part=self._catalogue.gather_known_embeddings(numbers[begin:end], model),
                    user=np.repeat(np.arange(len(user_counts), dtype=np.int64), user_counts),
                )
            )
            begin = end
        return {task: np.concatenate([scores[task] for scores in outputs]) for task in outputs[0]}

    def _rank(self, candidates: Sequence[UserCandidates], blocks: dict[str, Block]) -> RankedLists:
        """The best candidates of each user: by the ranker's scores, else by their value, else by their rank."""
        rules = self._rules.of("personal")
        numbers = np.concatenate([user_candidates.numbers for user_candidates in candidates])
        counts = [len(user_candidates.numbers) for user_candidates in candidates]
        ranker_scores = [user_candidates.scores for user_candidates in candidates if user_candidates.scores is not None]
        if ranker_scores:
            values = rules.boost(np.concatenate(ranker_scores), numbers, is_log=True)
            selection = self._select_best(candidates, values)
            selected = selection.indexes
            selected_scores = self._score(blocks, numbers[selected], selection.lengths)
            per_user = np.split(values, np.cumsum(counts)[:-1])
            shown_values = np.concatenate([softmax(scores) for scores in per_user])[selected]
        else:
            scores = self._score(blocks, numbers, counts)
            values = rules.boost(self._value_candidates(scores, candidates), numbers, is_log=False)
            selection = self._select_best(candidates, values)
            selected = selection.indexes
            selected_scores = {task: task_scores[selected] for task, task_scores in scores.items()}
            shown_values = values[selected]
        sources = np.concatenate([user_candidates.sources for user_candidates in candidates])[selected]
        propensities = np.repeat([user_candidates.propensity for user_candidates in candidates], selection.lengths)
        columns = (
            self._catalogue.item_ids(numbers[selected]),
            round_to_float32(shown_values).tolist(),
            to_rows({task: round_to_float32(column) for task, column in selected_scores.items()}, len(selected)),
            sources.tolist(),
            np.where(sources == FRESH, propensities, 1.0).tolist(),
            selection.rules,
        )
        items = [
            RecommendedItem(
                item_id=item, score=score, probability=probability, why=SOURCES[code], propensity=propensity, rule=rule
            )
            for item, score, probability, code, propensity, rule in zip(*columns, strict=True)
        ]
        logged = {
            task: np.where(np.isfinite(task_scores), task_scores, np.float32(np.nan)).tolist()
            for task, task_scores in selected_scores.items()
        }
        return RankedLists(
            ends=np.cumsum(selection.lengths).tolist(),
            numbers=numbers[selected],
            item_ids=columns[0],
            propensities=columns[4],
            items=items,
            scores=logged,
            is_by_model=bool(ranker_scores or selected_scores),
            rules=selection.rules,
            pinned=selection.pinned,
        )

    def _select_best(self, candidates: Sequence[UserCandidates], values: npt.NDArray[np.float32]) -> SelectedItems:
        """The items of all lists, by the values of all candidates and by the rules."""
        rules, length = self._rules.of("personal"), self._lists.length
        begins = np.cumsum([0, *(len(user_candidates.numbers) for user_candidates in candidates)]).tolist()
        lists = [
            rules.arrange(
                user_candidates.numbers,
                values[begin:end],
                length,
                is_fresh=user_candidates.sources == FRESH,
                pinned=user_candidates.pinned,
                soft_caps=self._soft_caps,
            )
            for user_candidates, begin, end in zip(candidates, begins, begins[1:], strict=False)
        ]
        indexes = [np.array(ranking.indexes, np.int64) + begin for ranking, begin in zip(lists, begins, strict=False)]
        names = [ranking.rules.get(index, "") for ranking in lists for index in ranking.indexes]
        return SelectedItems(
            np.concatenate(indexes),
            [len(ranking.indexes) for ranking in lists],
            names,
            [ranking.pinned for ranking in lists],
        )

    def _value_candidates(self, scores: Scores, candidates: Sequence[UserCandidates]) -> npt.NDArray[np.float32]:
        """The value of each candidate (P,): by the model, else by its rank. What is not finite comes last."""
        if not scores:
            return np.concatenate([falling_values(len(user_candidates.numbers)) for user_candidates in candidates])
        value = scores["click"] + self._lists.purchase_value * scores.get("purchase", np.zeros(1, np.float32))
        return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)


def count_rules(ranked: RankedLists, rules: KindRules) -> None:
    """Count the items that rules put where they are, and the lists for which rules leave none."""
    for names, count in Counter(filter(None, ranked.rules)).items():
        for name in names.split(NAME_SEPARATOR):
            metrics.LIST_RULE_ITEMS.labels(name).inc(count)
    if rules.suspended:
        metrics.LISTS_ALL_EXCLUDED.labels("popular").inc(len(ranked.ends))
    elif rules.removes:
        metrics.LISTS_ALL_EXCLUDED.labels("empty").inc(sum(not length for length in np.diff(ranked.ends, prepend=0)))
