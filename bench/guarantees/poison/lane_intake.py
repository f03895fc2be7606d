"""One lane of the check: the steps of a worker's batch, with profiles in memory."""

from collections.abc import Iterator, Sequence
from typing import Final

from bench.guarantees.poison.shops import Shop
from contract.events.model import Click, Order
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from transport.kafka_times import KafkaTimes
from transport.records import Record, TopicPartition
from worker.model.onnx_model import Model
from worker.records.answers import LIST
from worker.records.batch import Batch, decode_records
from worker.records.intake import make_event_readers
from worker.records.lanes import Lane
from worker.scoring.handlers import HANDLERS
from worker.scoring.results import BatchResults
from worker.scoring.scorer import LaneScorer, ScoringResources

PARTITIONS: Final = 2


class LaneIntake:
    """One lane: the steps of a batch, with profiles in memory."""

    def __init__(self, lane: Lane, shop: Shop, resources: ScoringResources, model: Model) -> None:
        self._lane, self._settings = lane, shop.settings
        self._readers = make_event_readers(shop.settings)
        self._record_reader = shop.open_reader(self._readers)
        self._entity_kinds = shop.settings.entity_kinds()
        self._kafka_times, self._profiles = KafkaTimes(), InMemoryProfileStore()
        self._scorer = LaneScorer(HANDLERS[lane.name], resources)
        self._scorer.activate(model)
        topics = self._record_reader.topics
        folded = topics.kinds_folded(lane.folded_kinds)
        self._sources = {
            TopicPartition(topic, partition): f"{kind}/{partition}"
            for topic, kind in folded.items()
            for partition in range(PARTITIONS)
        }
        self._topics = {topic for topic, kinds in topics.kinds.items() if set(kinds) & set(lane.kinds)} - {
            shop.settings.topics.topic_name(kind) for kind in lane.confirmed_kinds
        }

    def run(self, records: Sequence[Record], now_ms: int) -> tuple[Batch, BatchResults]:
        """The lane's batch of these records, and its results."""
        batch = decode_records(
            [record for record in records if record.topic_partition.topic in self._topics],
            self._record_reader.kinds,
            self._sources,
            self._lane.watched_kinds,
            self._lane.inspected_kinds,
            kafka_times=self._kafka_times,
            readers=self._readers,
            record_reader=self._record_reader,
        )
        extra = self._scorer.entities_to_read(batch, now_ms, len(records))
        updates = to_updates(batch.arrivals, extra, kinds=self._entity_kinds)
        memory = fold(self._profiles.read(updates.entities), updates)
        results = self._scorer.answer(batch, range(len(batch.arrivals)), memory, now_ms)
        results.extend(self._scorer.refresh(memory, now_ms, len(records)))
        self._profiles.merge(memory.slice_writes(), {}, {})
        for record in results.to_records(self._settings.topics, {}):
            record.count_bytes()
        return batch, results

    def find_unanswered(self, records: Sequence[Record], batch: Batch, results: BatchResults) -> Iterator[Record]:
        """Records of our own form that became neither an event nor a reject, and events without their answer."""
        seen = {(a.topic, a.partition, a.offset) for a in batch.arrivals}
        seen |= {(*reject.record.topic_partition, reject.record.offset) for reject in batch.rejects}
        for record in records:
            source = self._sources.get(record.topic_partition)
            is_plain = self._record_reader.is_plain(record.topic_partition.topic)
            if source and is_plain and (*record.topic_partition, record.offset) not in seen:
                yield record
        rows = [answer.scored for answer in results.answers if answer.kind is not LIST]
        answered = {(row.topic, row.partition, row.offset) for row in rows}
        answered |= {(*reject.record.topic_partition, reject.record.offset) for reject in results.rejects}
        for arrival in batch.arrivals:
            if isinstance(arrival.event, Order | Click) and (*arrival[3:], arrival.offset) not in answered:
                yield batch.find_record(arrival)
