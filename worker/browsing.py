"""Browsing: what the browsing lane says to clicks, searches and orders: scored rows, rankings, fresh lists."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from contract.encoding import Encoder, Served, entities_of
from contract.events import Click, Order, Search
from contract.memory import Memory
from contract.rows import Scored
from contract.settings import Lists
from contract.touches import Arrival
from worker.answers import Answers, answered_with, halve
from worker.batch import Batch
from worker.candidates import Candidates
from worker.catalogue import Catalogue, Popularity
from worker.due import Due
from worker.lists import GROUPS, ListMaker, Wish
from worker.runtime import Model, Scores
from worker.searching import Searcher

log = logging.getLogger(__name__)


class Browser:
    """The scorer of the browsing lane."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue) -> None:
        self._encoder, self._catalogue, self._lists = encoder, catalogue, lists
        self._model: Model | None = None
        self._due = Due(lists.refresh_ms)
        self.popularity = Popularity()
        self.candidates = Candidates(catalogue=catalogue, popularity=self.popularity, candidates_max=lists.candidates)
        self._maker = ListMaker(lists=lists, encoder=encoder, catalogue=catalogue, candidates=self.candidates)
        self._searcher = Searcher(encoder=encoder, catalogue=catalogue, items_max=lists.candidates)

    def serve(self, model: Model | None) -> None:
        self._model = model if model and model.can("recommend") else None
        self._catalogue.serve(model)
        self._maker.serve(model)
        self._searcher.serve(model)
        if model:
            self.popularity.begin_with(model.neighbours.popular())

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        users = [*self._due.ready(now_ms), *(a.event.user_id for a in batch.watched if isinstance(a.event, Order))]
        return [f"user:{user}" for user in users]

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        answers = Answers()

        def guilty(row: int, error: Exception, attempts: int) -> None:
            answers.rejects.append(batch.reject(batch.arrivals[row], error, attempts))

        clicks = [row for row in rows if isinstance(batch.arrivals[row].event, Click)]
        searches = [row for row in rows if isinstance(e := batch.arrivals[row].event, Search) and e.items]
        halve(clicks, lambda some: answers.scored.extend(self._log_clicks(batch, some, memory)), guilty)
        halve(searches, lambda some: answers.rankings.extend(self._searcher.rank(batch, some, memory)), guilty)
        self._note([*(batch.arrivals[row] for row in clicks), *batch.watched])
        self._refresh(memory, now_ms, answers)
        return answers

    def _note(self, arrivals: Iterable[Arrival]) -> None:
        arrivals = list(arrivals)
        self._due.note(arrivals)
        for arrival in arrivals:
            event = arrival.event
            if isinstance(event, Click):
                self.popularity.note(event.item_id, event.ts_ms, 1.0)
            elif isinstance(event, Order):
                for item in {line.item_id for line in event.lines}:
                    self.popularity.note(item, event.ts_ms, self._lists.purchase_value)

    def _refresh(self, memory: Memory, now_ms: int, answers: Answers) -> None:
        """New lists for the users that are due and were read with this batch; one that fails costs no other."""
        users = [user for user in self._due.ready(now_ms) if f"user:{user}" in memory.touches.index]
        if not users:
            return
        self.candidates.refresh()
        taken = [self._due.take(user, now_ms) for user in users]
        wishes = [Wish(arrival, frozenset(bought)) for arrival, bought in taken]
        halve(
            list(range(len(wishes))),
            lambda some: answers.lists.extend(self._maker.make([wishes[n] for n in some], memory, now_ms)),
            lambda n, error, _: log.error("No list could be made for user %s: %s", wishes[n].event.user_id, error),
        )

    def _log_clicks(self, batch: Batch, rows: list[int], memory: Memory) -> list[Scored]:
        """The scored row of each click: the user before it, the item, and what we thought of the pair."""
        blocks = self._encoder.before(memory, rows, GROUPS)
        arrivals = [batch.arrivals[row] for row in rows]
        items = [click.item_id for a in arrivals if isinstance(click := a.event, Click)]
        scores: Scores = {}
        if self._model:
            user = np.arange(len(rows), dtype=np.int64)
            scores = self._model.run("recommend", blocks, item_part=self._catalogue.parts(items), user=user)
        blocks["item"] = self._catalogue.block(items)
        served = Served(self._encoder.features.digest, answered_with(self._model))
        return [
            served.row(
                "click",
                arrivals[n],
                {group: block.take([n]) for group, block in blocks.items()},
                items=(items[n],),
                scores={task: (float(values[n]),) for task, values in scores.items()},
                entities=entities_of(memory, row),
            )
            for n, row in enumerate(rows)
        ]
