"""A desk of the browsing lane: what one model says to clicks, searches and users whose list is due.

Apart from `worker.browsing`, which knows whose list is due and what all see, whichever model answers them.
"""

from collections.abc import Sequence

import numpy as np

from contract.encoding import Encoder, Served, apart, entities_of
from contract.events import Click
from contract.memory import Memory
from contract.rows import Ranking, Recommendations, Scored
from contract.settings import Lists
from worker.answers import answered_with
from worker.batch import Batch
from worker.candidates import Candidates
from worker.catalogue import Catalogue
from worker.challenger import Lineup, version_of
from worker.item_index import Numbers
from worker.lists import GROUPS, ListMaker, Wish
from worker.runtime import Model, Scores, by_row, single
from worker.searching import Searcher


class BrowsingDesk:
    """Answers with the serving model of a line-up; a shadow in it is heard and not heeded."""

    def __init__(
        self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue, candidates: Candidates, lineup: Lineup
    ) -> None:
        self._encoder, self._catalogue = encoder, catalogue
        self._maker = ListMaker(lists=lists, encoder=encoder, catalogue=catalogue, candidates=candidates)
        self._searcher = Searcher(encoder=encoder, catalogue=catalogue, items_max=lists.candidates)
        able = lineup.able("recommend")
        self._model, self._shadow = able.model, able.shadow
        self._maker.serve(*lineup)
        self._searcher.serve(*lineup)

    def rank(self, batch: Batch, rows: list[int], memory: Memory) -> list[tuple[Ranking, Scored]]:
        """The ranking of each search among the batch's arrivals `rows`."""
        return self._searcher.rank(batch, rows, memory)

    def make(self, wishes: Sequence[Wish], memory: Memory, now_ms: int) -> list[tuple[Recommendations, Scored]]:
        """A list for each wish for which there is any candidate."""
        return self._maker.make(wishes, memory, now_ms)

    def log_clicks(self, batch: Batch, rows: list[int], memory: Memory, viewed: Numbers) -> list[Scored]:
        """The scored row of each click: the user before it, the item, and what we thought of the pair."""
        blocks = self._encoder.before(memory, rows, GROUPS)
        arrivals = [batch.arrivals[row] for row in rows]
        items = [click.item_id for a in arrivals if isinstance(click := a.event, Click)]

        def score(model: Model) -> Scores:
            parts = self._catalogue.parts(items, viewed[rows], model)
            return model.run("recommend", blocks, item_part=parts, user=np.arange(len(rows)))

        scores = score(self._model) if self._model else {}
        aside = self._shadow.say(len(rows), score) if self._shadow else {}
        blocks["item"] = self._catalogue.block(items, viewed[rows])
        served = Served(self._encoder.features.digest, answered_with(self._model), version_of(self._shadow))
        answers = (by_row(scores, len(rows)), by_row(aside, len(rows)))
        columns = (arrivals, apart(blocks), items, *answers, entities_of(memory, rows))
        return [
            served.row(
                "click",
                arrival,
                groups,
                items=(item,),
                scores=single(own),
                shadow=single(beside),
                entities=entities,
            )
            for arrival, groups, item, own, beside, entities in zip(*columns, strict=True)
        ]
