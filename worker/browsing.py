"""Browsing: what the browsing lane says to clicks, searches and orders: scored rows, rankings, fresh lists."""

import logging
from collections.abc import Iterable, Sequence

import numpy as np

from contract.encoding import Encoder
from contract.events import Click, Event, Order, Search
from contract.memory import Memory, Profiles
from contract.settings import Lists
from worker import metrics
from worker.answers import Answers
from worker.batch import Batch
from worker.browsing_desk import BrowsingDesk
from worker.candidates import Candidates
from worker.catalogue import Catalogue
from worker.challenger import Challenger, Lineup
from worker.desks import Desks
from worker.due import Due
from worker.fresh import Fresh
from worker.item_index import Numbers
from worker.lists import Wish
from worker.nearby import Nearby
from worker.popularity import Popularity
from worker.runtime import Model, Neighbours
from worker.stopwatch import STOPWATCH

log = logging.getLogger(__name__)
VISITED_BEFORE = 2  # items that a click follows on, of the user's latest


class Browser:
    """The scorer of the browsing lane."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue) -> None:
        self._encoder, self._catalogue, self._lists = encoder, catalogue, lists
        self._neighbours: Neighbours | None = None
        self._due = Due(lists.refresh_ms, lists.batch_max, lists.waiting_max)
        self._nearby, self._fresh = Nearby(catalogue), Fresh(catalogue, lists)
        self.popularity = Popularity(catalogue, lists.purchase_value)
        self._candidates = Candidates(
            catalogue=catalogue,
            nearby=self._nearby,
            popularity=self.popularity,
            fresh=self._fresh,
            candidates_max=lists.candidates,
        )
        self._stream_ms = 0
        self._desks = Desks(self._desk(Lineup()))

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        lineup = Lineup(model, challenger)
        self._catalogue.serve(*lineup.models)
        canary = lineup.able("recommend").canary
        self._desks = Desks(self._desk(lineup), (canary, self._desk(Lineup(canary.model))) if canary else None)
        neighbours = model.neighbours if model else None
        if neighbours is not self._neighbours:  # candidates come from the serving model's alone, whoever ranks them
            self._neighbours = neighbours
            self._nearby.serve(neighbours)
            if neighbours:
                self.popularity.begin_with(self._catalogue.linked(neighbours.hashes[neighbours.popular]))
                self.popularity.rank()

    def _desk(self, lineup: Lineup) -> BrowsingDesk:
        return BrowsingDesk(
            lists=self._lists,
            encoder=self._encoder,
            catalogue=self._catalogue,
            candidates=self._candidates,
            lineup=lineup,
        )

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
            self._desks.answer(
                clicks,
                batch.user,
                lambda desk, some: answers.scored.extend(desk.log_clicks(batch, some, memory, viewed)),
                guilty,
            )
        self._desks.answer(
            searches,
            batch.user,
            lambda desk, some: answers.rankings.extend(desk.rank(batch, some, memory)),
            guilty,
        )
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
        self._desks.answer(
            list(range(len(wishes))),
            lambda n: wishes[n].event.user_id,
            lambda desk, some: answers.lists.extend(desk.make([wishes[n] for n in some], memory, now_ms)),
            lambda n, error, _: log.error("No list could be made for user %s: %s", wishes[n].event.user_id, error),
        )
        return answers
