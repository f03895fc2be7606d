"""Searching: the engine's result of a search, put into the order of relevance to this user."""

import numpy as np

from contract.events import Search
from contract.features.encoder import Encoder, list_entities
from contract.features.packing import pack, split_rows
from contract.messages import Ranking, ScoredRow, ScoredRowBuilder
from contract.profiles.store import FoldedBatch
from worker.catalogue.catalogue import Catalogue
from worker.model.experiment import ActiveModels, TrialModel, select_finite, trial_version
from worker.model.onnx_model import Model, Scores
from worker.records.batch import Batch

GROUPS = ("query", "user")


class SearchRanker:
    """Ranks the first `items_max` items of searches that name any; what follows keeps the engine's order."""

    def __init__(self, *, encoder: Encoder, catalogue: Catalogue, items_max: int) -> None:
        self._encoder, self._catalogue, self._items_max = encoder, catalogue, items_max
        self._model: Model | None = None
        self._shadow: TrialModel | None = None

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """Rank with this model; a challenger that is a shadow is heard beside it."""
        models = ActiveModels(model, trial_model).supporting("search")
        self._model, self._shadow = models.serving, models.shadow

    def rank(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[tuple[Ranking, ScoredRow]]:
        """The ranking of each search among `rows`; none without a model, since the engine's own order stands then."""
        if not self._model or not rows:
            return []
        searches = [event for row in rows if isinstance(event := batch.arrivals[row].event, Search)]
        shown = [(search.items or ())[: self._items_max] for search in searches]
        blocks = self._encoder.encode_before(memory, rows, GROUPS)
        items = [item for search_items in shown for item in search_items]
        search = np.repeat(np.arange(len(rows), dtype=np.int64), [len(search_items) for search_items in shown])

        def score(model: Model) -> Scores:
            embeddings = self._catalogue.item_embeddings(items, model=model)
            return model.run("search", blocks, item_part=embeddings, search=search)

        relevance = score(self._model)["relevance"]
        shadow_scores = self._shadow.predict_shadow(len(items), score) if self._shadow else {}
        served = ScoredRowBuilder(self._encoder.features.digest, self._model.version, trial_version(self._shadow))
        ranked, end = [], 0
        groups, entities = split_rows(blocks), list_entities(memory, rows)
        for n, row in enumerate(rows):
            start, end = end, end + len(shown[n])
            order = np.argsort(-relevance[start:end], kind="stable").tolist()
            ranked_items = tuple(shown[n][i] for i in order)
            values = tuple(float(relevance[start + i]) for i in order)
            ranking = self._build_message(searches[n], ranked_items, values)
            scored = served.build(
                "search",
                batch.arrivals[row],
                groups[n] | {"item": pack(self._catalogue.item_block(ranked_items))},
                items=ranked_items,
                scores={"relevance": values},
                shadow=select_finite(shadow_scores, [start + i for i in order]),
                entities=entities[n],
            )
            ranked.append((ranking, scored))
        return ranked

    def _build_message(self, search: Search, ranked_items: tuple[str, ...], values: tuple[float, ...]) -> Ranking:
        assert self._model is not None
        return Ranking(
            event_id=search.event_id,
            user_id=search.user_id,
            query=search.query,
            items=ranked_items + (search.items or ())[len(ranked_items) :],
            relevance=values,
            model_version=self._model.version,
        )
