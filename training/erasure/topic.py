"""The erasures topic as training reads it: always up to its present end, before examples are used."""

import logging
from collections.abc import Mapping

from contract.errors import BadEvent
from contract.events.model import Erasure, clamp
from contract.events.reading import READERS, EventReader
from contract.profiles.erasures import Erasures
from contract.settings.servers import KafkaSettings
from training.feedback.read_plan import PlannedTopic
from transport.records import Record, TopicPartition

log = logging.getLogger(__name__)


class ErasureTopic:
    """Keeps `erasures` in step with the topic; `offsets`: how far each partition is read."""

    def __init__(self, *, kafka: KafkaSettings, topic: str, reader: EventReader = READERS["erasures"]) -> None:
        self._event_reader = reader
        self.erasures = Erasures()
        self.offsets: Mapping[TopicPartition, int] = {}
        self._topic, self._positions = PlannedTopic(kafka=kafka, topic=topic), dict[str, int]()

    def poll(self) -> bool:
        """Read up to the present end; whether an erasure was added. Raises `Unavailable`.

        A topic that does not exist has no erasures. One that was deleted and recreated is read from its beginning, and
        adds to those known.
        """
        plan = self._topic.plan(self._positions)
        added = [
            self.erasures.add(erasure)
            for records in self._topic.reader.read(plan.ends, plan.starts)
            for record in records
            if (erasure := decode_erasure(record, self._event_reader))
        ]
        self._topic.confirm(plan)
        self._positions = plan.advance(self._positions, plan.ends)
        self.offsets = plan.standing | plan.ends
        return any(added)

    def close(self) -> None:
        self._topic.close()


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
