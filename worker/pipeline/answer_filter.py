"""Which events of a batch still need an answer, and which answers may stay.

An event that was answered before a restart only updates profiles. Events of erased users get no answer, except for
kinds of answers that are given to them too; their claims are deleted after publishing.
"""

from collections.abc import Callable
from dataclasses import replace

from contract.events.model import KIND_BY_TYPE, Event, digest_content
from contract.profiles.entity_updates import Arrival
from contract.profiles.erasures import Erasures
from transport.records import TopicPartition
from worker.ops import metrics
from worker.records.answers import AnswerKind
from worker.records.batch import Batch
from worker.scoring.results import BatchResults
from worker.state.claim_store import ClaimKey
from worker.state.offsets import OffsetTracker


class AnswerFilter:
    """Compares a batch with the committed offsets and the erasures.

    `kind_of`: the kind of answer that an event gets.
    """

    def __init__(
        self,
        *,
        offsets: OffsetTracker,
        erasures: Erasures,
        kind_of: Callable[[Event], AnswerKind | None],
    ) -> None:
        self._offsets = offsets
        self._erasures = erasures
        self._kind_of = kind_of

    def without_answered(self, batch: Batch) -> Batch:
        """The batch without watched events and rejects that are answered already, or watched ones of erased users."""
        if self._needs_all_answers(batch):
            return batch
        watched = [
            arrival
            for arrival in batch.watched
            if not self._is_answered(arrival) and not self._erasures.covers_event(arrival.event)
        ]
        rejects = [
            reject
            for reject in batch.rejects
            if not self._offsets.is_answered(reject.record.topic_partition, reject.record.offset)
        ]
        return replace(batch, watched=watched, rejects=rejects)

    def find_waiting(self, batch: Batch) -> list[Arrival]:
        """Answered events that are read again because their users may wait for an answer by the clock."""
        if self._offsets.waiting_from.keys().isdisjoint(batch.first_offsets):
            return []
        return [
            arrival
            for arrival in (*batch.arrivals, *batch.watched)
            if self._offsets.may_wait(TopicPartition(arrival.topic, arrival.partition), arrival.offset)
            and not self._erasures.covers_event(arrival.event)
        ]

    def rows_to_answer(self, batch: Batch) -> list[int]:
        """The batch's arrivals that need an answer."""
        if self._needs_all_answers(batch):
            return list(range(len(batch.arrivals)))
        return [row for row, arrival in enumerate(batch.arrivals) if self._needs_answer(arrival)]

    def find_late_erased(self, batch: Batch) -> list[Arrival]:
        """The batch's arrivals that come after an erasure that covers them, and for the first time."""
        if not self._erasures:
            return []
        return [
            arrival
            for arrival in batch.arrivals
            if self._erasures.covers_event(arrival.event) and not self._is_answered(arrival)
        ]

    def drop_erased(self, results: BatchResults) -> None:
        """Remove answers that reflect nothing but erased events."""
        if self._erasures:
            results.answers = [
                answer
                for answer in results.answers
                if answer.kind.answers_erased or not self._erasures.covers(answer.scored.user_id, answer.scored.ts_ms)
            ]

    def claims_to_delete(self, batch: Batch) -> list[ClaimKey]:
        """The claims of events of erased users, which are published by now."""
        if not self._erasures:
            return []
        return [
            ClaimKey(kind, batch.user_id(row), arrival.event.event_id, digest_content(arrival.event))
            for row, arrival in enumerate(batch.arrivals)
            if self._erasures.covers_event(arrival.event)
            and (kind := self._kind_of(arrival.event)) is not None
            and kind.answers_erased
        ]

    def _needs_all_answers(self, batch: Batch) -> bool:
        """Whether no event of the batch is answered and no user erased, as in nearly every batch: a quick check."""
        is_new = not any(
            self._offsets.is_answered(partition, first_offset)
            for partition, first_offset in batch.first_offsets.items()
        )
        return is_new and not self._erasures

    def _needs_answer(self, arrival: Arrival) -> bool:
        if self._is_answered(arrival):
            metrics.EVENTS_RECOVERED.labels(KIND_BY_TYPE[type(arrival.event)]).inc()
            return False
        if self._erasures.covers_event(arrival.event):
            metrics.ERASED_EVENTS.labels(KIND_BY_TYPE[type(arrival.event)]).inc()
            kind = self._kind_of(arrival.event)
            return kind is not None and kind.answers_erased
        return True

    def _is_answered(self, arrival: Arrival) -> bool:
        return self._offsets.is_answered(TopicPartition(arrival.topic, arrival.partition), arrival.offset)
