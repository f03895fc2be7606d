"""Owed: which answers a batch still has to get, and which of them may stay. Pure bookkeeping.

None that is out already: the batch is then only folded. And where people are erased, none that keeps what they did
before: only an order is decided still, since the shop waits for it, and its decision goes once it is out.
"""

from collections import defaultdict
from collections.abc import Mapping

from contract.erasures import Erasures
from contract.events import Order
from contract.touches import Arrival
from worker import metrics
from worker.answers import Answers
from worker.batch import Batch
from worker.intake import Place
from worker.positions import Positions


class Owed:
    """Tells of each batch what is still owed to whom; `kinds` are by topic."""

    def __init__(self, *, positions: Positions, erasures: Erasures, kinds: Mapping[str, str]) -> None:
        self._positions, self._erasures, self._kinds = positions, erasures, kinds

    def trim(self, batch: Batch) -> None:
        """What is out already, or would answer somebody erased, is no longer watched or rejected in this batch."""
        if self._all_owed(batch):
            return
        batch.watched = [a for a in batch.watched if not self._is_out(a) and not self._erasures.cover_event(a.event)]
        batch.rejects = [r for r in batch.rejects if not self._positions.is_answered(r.record.place, r.record.offset)]

    def rows(self, batch: Batch) -> list[int]:
        """Which of its arrivals are to be answered."""
        if self._all_owed(batch):
            return list(range(len(batch.arrivals)))
        return [row for row, arrival in enumerate(batch.arrivals) if self._is_owed(arrival)]

    def withhold(self, answers: Answers) -> None:
        """Take back lists that would reflect nothing but what is erased."""
        cover = self._erasures.cover
        answers.lists = [(made, row) for made, row in answers.lists if not cover(made.user_id, made.source_ms)]

    def passing(self, batch: Batch) -> dict[str, list[str]]:
        """Orders, by user, whose decisions are not to stay."""
        found = defaultdict[str, list[str]](list)
        if self._erasures:
            for event in (arrival.event for arrival in batch.arrivals):
                if isinstance(event, Order) and self._erasures.cover_event(event):
                    found[event.user_id].append(event.event_id)
        return found

    def _all_owed(self, batch: Batch) -> bool:
        """Whether nothing of a batch is out and nobody is erased, as nearly always: then no event need be asked for."""
        is_new = not any(self._positions.is_answered(place, first) for place, first in batch.begins.items())
        return is_new and not self._erasures

    def _is_owed(self, arrival: Arrival) -> bool:
        if self._is_out(arrival):
            metrics.FOLDED_ONLY.labels(self._kinds[arrival.topic]).inc()
            return False
        if self._erasures.cover_event(arrival.event):
            metrics.ERASED_EVENTS.labels(self._kinds[arrival.topic]).inc()
            return isinstance(arrival.event, Order)
        return True

    def _is_out(self, arrival: Arrival) -> bool:
        return self._positions.is_answered(Place(arrival.topic, arrival.partition), arrival.offset)
