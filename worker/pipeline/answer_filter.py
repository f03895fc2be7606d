"""Owed: which answers a batch still has to get, and which of them may stay. Pure bookkeeping.

None that is out already: the batch is then only folded. And where people are erased, none that keeps what they did
before: only an order is decided still, since the shop waits for it, and its decision goes once it is out.
"""

from collections import defaultdict
from collections.abc import Mapping

from contract.events import Order
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from transport.records import TopicPartition
from worker.ops import metrics
from worker.records.batch import Batch
from worker.scoring.results import BatchResults
from worker.state.offsets import OffsetTracker


class AnswerFilter:
    """Tells of each batch what is still owed to whom; `kinds` are by topic."""

    def __init__(self, *, offsets: OffsetTracker, erasures: Erasures, kinds: Mapping[str, str]) -> None:
        self._offsets, self._erasures, self._kinds = offsets, erasures, kinds

    def drop_answered(self, batch: Batch) -> None:
        """What is out already, or would answer somebody erased, is no longer watched or rejected in this batch."""
        if self._needs_all_answers(batch):
            return
        batch.watched = [
            a for a in batch.watched if not self._is_answered(a) and not self._erasures.covers_event(a.event)
        ]
        batch.rejects = [
            r for r in batch.rejects if not self._offsets.is_answered(r.record.topic_partition, r.record.offset)
        ]

    def rows_to_answer(self, batch: Batch) -> list[int]:
        """Which of its arrivals are to be answered."""
        if self._needs_all_answers(batch):
            return list(range(len(batch.arrivals)))
        return [row for row, arrival in enumerate(batch.arrivals) if self._needs_answer(arrival)]

    def drop_erased(self, answers: BatchResults) -> None:
        """Take back lists that would reflect nothing but what is erased."""
        cover = self._erasures.covers
        answers.lists = [
            (recommendations, row)
            for recommendations, row in answers.lists
            if not cover(recommendations.user_id, recommendations.source_ms)
        ]

    def decisions_to_delete(self, batch: Batch) -> dict[str, list[str]]:
        """Orders, by user, whose decisions are not to stay."""
        order_ids_by_user = defaultdict[str, list[str]](list)
        if self._erasures:
            for event in (arrival.event for arrival in batch.arrivals):
                if isinstance(event, Order) and self._erasures.covers_event(event):
                    order_ids_by_user[event.user_id].append(event.event_id)
        return order_ids_by_user

    def _needs_all_answers(self, batch: Batch) -> bool:
        """Whether nothing of a batch is out and nobody is erased, as nearly always: then no event need be asked for."""
        is_new = not any(
            self._offsets.is_answered(partition, first_offset)
            for partition, first_offset in batch.first_offsets.items()
        )
        return is_new and not self._erasures

    def _needs_answer(self, arrival: Arrival) -> bool:
        if self._is_answered(arrival):
            metrics.EVENTS_RECOVERED.labels(self._kinds[arrival.topic]).inc()
            return False
        if self._erasures.covers_event(arrival.event):
            metrics.ERASED_EVENTS.labels(self._kinds[arrival.topic]).inc()
            return isinstance(arrival.event, Order)
        return True

    def _is_answered(self, arrival: Arrival) -> bool:
        return self._offsets.is_answered(TopicPartition(arrival.topic, arrival.partition), arrival.offset)
