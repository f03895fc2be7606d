"""The erasures topic as training reads it: always up to its present end, before examples are used."""

import logging
from collections.abc import Mapping

from contract.errors import BadEvent
from contract.events.model import Erasure, clamp
from contract.events.reading import READERS, EventReader
from contract.profiles.erasures import Erasures
from contract.settings.servers import KafkaSettings
from training.feedback.read_plan import plan_read, to_positions
from transport.admin_connection import AdminConnection
from transport.log_reader import LogReader
from transport.records import Record, TopicPartition
from transport.topic_watcher import TopicState, fetch_topic_states

log = logging.getLogger(__name__)


class ErasureTopic:
    """Keeps `erasures` in step with the topic; `offsets`: how far each partition is read."""

    def __init__(self, *, kafka: KafkaSettings, topic: str, reader: EventReader = READERS["erasures"]) -> None:
        self._event_reader = reader
        self.erasures = Erasures()
        self.offsets: Mapping[TopicPartition, int] = {}
        self._reader = LogReader(kafka=kafka, skips_gaps=True)
        self._connection, self._has_topic_ids = AdminConnection(kafka=kafka), kafka.topic_ids
        self._topic = topic
        self._state: TopicState | None = None

    def poll(self) -> bool:
        """Read up to the present end; whether an erasure was added. Raises `Unavailable`.

        A topic that does not exist has no erasures. One that was deleted and recreated is read from its beginning, and
        adds to those known.
        """
        self._restart_if_recreated()
        offset_ranges = self._reader.fetch_offset_ranges([self._topic])
        plan = plan_read(offset_ranges, to_positions(self.offsets))
        added = [
            self.erasures.add(erasure)
            for records in self._reader.read(plan.ends, plan.starts)
            for record in records
            if (erasure := decode_erasure(record, self._event_reader))
        ]
        self.offsets = {partition: offset_range.high for partition, offset_range in offset_ranges.items()}
        return any(added)

    def close(self) -> None:
        self._reader.close()

    def _restart_if_recreated(self) -> None:
        states = fetch_topic_states(self._connection, [self._topic], has_topic_ids=self._has_topic_ids)
        state = states.get(self._topic)
        if state and self._state and state.topic_id != self._state.topic_id:
            log.warning("%s was deleted and recreated: it is read from its beginning again.", self._topic)
            self.offsets = {}
        self._state = state or self._state


def decode_erasure(record: Record, reader: EventReader) -> Erasure | None:
    """The erasure of a record; None for a tombstone, and for an invalid record, whose dead letter a worker writes."""
    if record.value is None:
        return None
    try:
        event, _ = clamp(reader.read(record.value), record.kafka_ms)
    except BadEvent as error:
        log.error(
            "Unreadable erasure %s is not carried out: %s",
            record.topic_partition.log_text(record.offset),
            error,
            extra=record.topic_partition.log_fields(record.offset),
        )
        return None
    return event if isinstance(event, Erasure) else None
