"""Searching: the engine's result of a search, put into the order of relevance to this user."""

import numpy as np

from contract.encoding import Encoder, Served, apart, entities_of
from contract.events import Search
from contract.memory import Memory
from contract.rows import Ranking, Scored, pack
from worker.batch import Batch
from worker.catalogue import Catalogue
from worker.challenger import Challenger, Lineup, finite, version_of
from worker.runtime import Model, Scores

GROUPS = ("query", "user")


class Searcher:
    """Ranks the first `items_max` items of searches that name any; what follows keeps the engine's order."""

    def __init__(self, *, encoder: Encoder, catalogue: Catalogue, items_max: int) -> None:
        self._encoder, self._catalogue, self._items_max = encoder, catalogue, items_max
        self._model: Model | None = None
        self._shadow: Challenger | None = None

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        """Rank with this model; a challenger that is a shadow is heard beside it."""
        lineup = Lineup(model, challenger).able("search")
        self._model, self._shadow = lineup.model, lineup.shadow

    def rank(self, batch: Batch, rows: list[int], memory: Memory) -> list[tuple[Ranking, Scored]]:
        """The ranking of each search among `rows`; none without a model, since the engine's own order stands then."""
        if not self._model or not rows:
            return []
        searches = [event for row in rows if isinstance(event := batch.arrivals[row].event, Search)]
        shown = [(search.items or ())[: self._items_max] for search in searches]
        blocks = self._encoder.before(memory, rows, GROUPS)
        items = [item for some in shown for item in some]
        search = np.repeat(np.arange(len(rows), dtype=np.int64), [len(some) for some in shown])

        def score(model: Model) -> Scores:
            parts = self._catalogue.parts(items, of=model)
            return model.run("search", blocks, item_part=parts, search=search)

        relevance = score(self._model)["relevance"]
        aside = self._shadow.say(len(items), score) if self._shadow else {}
        served = Served(self._encoder.features.digest, self._model.version, version_of(self._shadow))
        ranked, end = [], 0
        groups, entities = apart(blocks), entities_of(memory, rows)
        for n, row in enumerate(rows):
            start, end = end, end + len(shown[n])
            order = np.argsort(-relevance[start:end], kind="stable").tolist()
            own = tuple(shown[n][i] for i in order)
            values = tuple(float(relevance[start + i]) for i in order)
            ranking = self._ranking(searches[n], own, values)
            scored = served.row(
                "search",
                batch.arrivals[row],
                groups[n] | {"item": pack(self._catalogue.block(own))},
                items=own,
                scores={"relevance": values},
                shadow=finite(aside, [start + i for i in order]),
                entities=entities[n],
            )
            ranked.append((ranking, scored))
        return ranked

    def _ranking(self, search: Search, own: tuple[str, ...], values: tuple[float, ...]) -> Ranking:
        assert self._model is not None
        return Ranking(
            event_id=search.event_id,
            user_id=search.user_id,
            query=search.query,
            items=own + (search.items or ())[len(own) :],
            relevance=values,
            model_version=self._model.version,
        )
