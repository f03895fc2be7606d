"""Browsing: what the browsing lane says to clicks, searches and orders: scored rows, rankings, fresh lists."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from contract.encoding import Encoder, Served, apart, entities_of
from contract.events import Click, Event, Order, Search
from contract.memory import Memory, Profiles
from contract.rows import Scored
from contract.settings import Lists
from worker import metrics
from worker.answers import Answers, answered_with, halve
from worker.batch import Batch
from worker.candidates import Candidates
from worker.catalogue import Catalogue
from worker.due import Due
from worker.fresh import Fresh
from worker.item_index import Numbers
from worker.lists import GROUPS, ListMaker, Wish
from worker.nearby import Nearby
from worker.popularity import Popularity
from worker.runtime import Model, Scores, by_row
from worker.searching import Searcher
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)
VISITED_BEFORE = 2  # items that a click follows on, of the user's latest


class Browser:
    """The scorer of the browsing lane."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue) -> None:
        self._encoder, self._catalogue, self._lists = encoder, catalogue, lists
        self._model: Model | None = None
        self._due = Due(lists.refresh_ms, lists.batch_max, lists.waiting_max)
        self._nearby, self._fresh = Nearby(catalogue), Fresh(catalogue, lists)
        self.popularity = Popularity(catalogue, lists.purchase_value)
        candidates = Candidates(
            catalogue=catalogue,
            nearby=self._nearby,
            popularity=self.popularity,
            fresh=self._fresh,
            candidates_max=lists.candidates,
        )
        self._stream_ms = 0
        self._maker = ListMaker(lists=lists, encoder=encoder, catalogue=catalogue, candidates=candidates)
        self._searcher = Searcher(encoder=encoder, catalogue=catalogue, items_max=lists.candidates)

    def serve(self, model: Model | None) -> None:
        self._model = model if model and model.can("recommend") else None
        self._catalogue.serve(model)
        self._maker.serve(model)
        self._searcher.serve(model)
        neighbours = model.neighbours if model else None
        self._nearby.serve(neighbours)
        if neighbours:
            self.popularity.begin_with(self._catalogue.linked(neighbours.hashes[neighbours.popular]))
            self.popularity.rank()

    def look_around(self, profiles: Profiles) -> None:
        """What goes by the clock and by no event: what is popular, what is new; raises `Unavailable`."""
        self._catalogue.settle()
        self._nearby.refresh()
        self._fresh.refresh(self._stream_ms)
        if self._stream_ms:
            self.popularity.look(profiles, self._stream_ms)
        self.popularity.rank()

    def watched(self, batch: Batch, now_ms: int) -> list[str]:
        users = [*self._due.ready(now_ms), *(a.event.user_id for a in batch.watched if isinstance(a.event, Order))]
        return [f"user:{user}" for user in users]

    def answer(self, batch: Batch, rows: Sequence[int], memory: Memory, now_ms: int) -> Answers:
        answers = Answers()

        def guilty(row: int, error: Exception, attempts: int) -> None:
            answers.rejects.append(batch.reject(batch.arrivals[row], error, attempts))

        clicks = [row for row in rows if isinstance(batch.arrivals[row].event, Click)]
        viewed = self._viewed(memory)
        searches = [row for row in rows if isinstance(e := batch.arrivals[row].event, Search) and e.items]
        with STOPWATCH("score clicks"):
            halve(clicks, lambda some: answers.scored.extend(self._log_clicks(batch, some, memory, viewed)), guilty)
        halve(searches, lambda some: answers.rankings.extend(self._searcher.rank(batch, some, memory)), guilty)
        with STOPWATCH("score visits"):
            self._note(batch, clicks, now_ms)
            if clicks:
                self._count_visits(clicks, memory, viewed)
            self._count_purchases(arrival.event for arrival in batch.watched)
        return answers

    def _note(self, batch: Batch, clicks: Sequence[int], now_ms: int) -> None:
        """Whose list is due for these clicks and orders."""
        arrivals = [*(batch.arrivals[row] for row in clicks), *batch.watched]
        self._stream_ms = max([self._stream_ms, *[arrival.event.ts_ms for arrival in arrivals]])
        in_time = arrivals
        if self._lists.shed_ms:
            oldest_ms = now_ms - self._lists.shed_ms
            in_time = [arrival for arrival in arrivals if batch.record(arrival).kafka_ms >= oldest_ms]
        given_up = self._due.note(in_time)
        metrics.SHED.inc(len(arrivals) - len(in_time) + given_up)
        if len(in_time) < len(arrivals):
            for event in (arrival.event for arrival in arrivals):
                if isinstance(event, Order):
                    self._due.note_bought(event)

    def _viewed(self, memory: Memory) -> Numbers:
        """The catalogue number of each arrival's item (N,), -1 for none or an unknown one: links have its hash."""
        touches = memory.touches
        first = touches.first("item")
        numbers = self._catalogue.linked(touches.ident[touches.entity[first]]) if len(touches.entity) else first
        return np.where(first < 0, -1, numbers)

    def _count_visits(self, clicks: Sequence[int], memory: Memory, viewed: Numbers) -> None:
        numbers = viewed[clicks]
        self.popularity.touch(numbers)
        users = memory.touches.first("user")[np.asarray(clicks, np.int64)]
        before = self._catalogue.linked(memory.recent[users][:, :VISITED_BEFORE])  # (clicks, VISITED_BEFORE)
        self._nearby.visits.note(before.ravel(), np.repeat(numbers, before.shape[1]), self._stream_ms)

    def _count_purchases(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Order):
                numbers = self._catalogue.find(list(dict.fromkeys(line.item_id for line in event.lines)))
                self.popularity.touch(numbers)
                self._nearby.visits.note(numbers[:-1], numbers[1:], self._stream_ms)

    def refresh(self, memory: Memory, now_ms: int) -> Answers:
        """New lists for the users that are due and were read with this batch; one that fails costs no other."""
        answers = Answers()
        users = [user for user in self._due.ready(now_ms) if f"user:{user}" in memory.touches.index]
        taken = [self._due.take(user, now_ms) for user in users]
        wishes = [Wish(arrival, frozenset(bought)) for arrival, bought in taken]
        halve(
            list(range(len(wishes))),
            lambda some: answers.lists.extend(self._maker.make([wishes[n] for n in some], memory, now_ms)),
            lambda n, error, _: log.error("No list could be made for user %s: %s", wishes[n].event.user_id, error),
        )
        return answers

    def _log_clicks(self, batch: Batch, rows: list[int], memory: Memory, viewed: Numbers) -> list[Scored]:
        """The scored row of each click: the user before it, the item, and what we thought of the pair."""
        blocks = self._encoder.before(memory, rows, GROUPS)
        arrivals = [batch.arrivals[row] for row in rows]
        items = [click.item_id for a in arrivals if isinstance(click := a.event, Click)]
        scores: Scores = {}
        if self._model:
            parts = self._catalogue.parts(items, viewed[rows])
            scores = self._model.run("recommend", blocks, item_part=parts, user=np.arange(len(rows)))
        blocks["item"] = self._catalogue.block(items, viewed[rows])
        served = Served(self._encoder.features.digest, answered_with(self._model))
        columns = (arrivals, apart(blocks), items, by_row(scores, len(rows)), entities_of(memory, rows))
        return [
            served.row(
                "click",
                arrival,
                groups,
                items=(item,),
                scores={task: (value,) for task, value in own.items()},
                entities=entities,
            )
            for arrival, groups, item, own, entities in zip(*columns, strict=True)
        ]
