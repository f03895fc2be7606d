"""Ranks searches: the engine's result, put into the order of relevance to this user."""

from collections.abc import Sequence

import numpy as np

from contract.events.model import Event, Search
from contract.features.encoder import list_entities
from contract.features.packing import pack, split_rows
from contract.graphs import SEARCH
from contract.messages import Ranking, ScoredRow, ScoredRowBuilder
from contract.profiles.store import FoldedBatch
from worker.model.experiment import ActiveModels, model_version, select_finite
from worker.model.onnx_model import Model, Scores
from worker.records.answers import RANKING, Answer
from worker.records.batch import Batch
from worker.scoring.scorer import ScoringResources


def names_items(event: Event) -> bool:
    """Whether a search has a result to rank."""
    return isinstance(event, Search) and bool(event.items)


class SearchRanker:
    """Ranks the first `lists.candidates` items of a search; the others keep the engine's order.

    Without a model it gives no ranking, since the engine's order stands then.
    """

    def __init__(self, resources: ScoringResources, models: ActiveModels, is_canary: bool) -> None:
        self._encoder, self._catalogue = resources.encoder, resources.catalogue
        self._items_max = resources.settings.lists.candidates
        self._model, self._shadow = models.serving, models.shadow

    def answer(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[Answer]:
        """The ranking of each of the batch's searches `rows`."""
        if not self._model or not rows:
            return []
        model = self._model
        searches = [event for row in rows if isinstance(event := batch.arrivals[row].event, Search)]
        shown = [(search.items or ())[: self._items_max] for search in searches]
        blocks = self._encoder.encode_before(memory, rows, SEARCH.event_groups)
        items = [item for search_items in shown for item in search_items]
        pair_rows = np.repeat(np.arange(len(rows), dtype=np.int64), [len(search_items) for search_items in shown])

        def score(model: Model) -> Scores:
            embeddings = self._catalogue.item_embeddings(items, model=model)
            return model.run(SEARCH.name, blocks, item_part=embeddings, search=pair_rows)

        relevance = score(model)["relevance"]
        shadow_scores = self._shadow.predict_shadow(len(items), score) if self._shadow else {}
        builder = ScoredRowBuilder(self._encoder.features.digest, model.version, model_version(self._shadow))
        columns = (rows, searches, shown, split_rows(blocks), list_entities(memory, rows))
        answers, end = list[Answer](), 0
        for row, search, search_items, groups, entities in zip(*columns, strict=True):
            start, end = end, end + len(search_items)
            order = start + np.argsort(-relevance[start:end], kind="stable")
            ranked_items = tuple(items[pair] for pair in order)
            scored = builder.build(
                "search",
                batch.arrivals[row],
                groups | {"item": pack(self._catalogue.item_block(ranked_items))},
                items=ranked_items,
                scores={"relevance": tuple(relevance[order].tolist())},
                shadow=select_finite(shadow_scores, order.tolist()),
                entities=entities,
            )
            answers.append(Answer(RANKING, scored, build_ranking(search, scored, model.version)))
        return answers


def build_ranking(search: Search, scored: ScoredRow, version: str) -> Ranking:
    """The ranking of a scored row, followed by the items that were not ranked."""
    unranked: Sequence[str] = (search.items or ())[len(scored.items) :]
    return Ranking(
        event_id=search.event_id,
        user_id=search.user_id,
        query=search.query,
        items=(*scored.items, *unranked),
        relevance=scored.scores["relevance"],
        model_version=version,
    )
