"""The door for topics that every worker reads whole: by assignment, from their beginning, outside any group."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from contract.errors import Unavailable
from contract.settings import Kafka
from worker.intake import Place, Record, as_bytes

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0


class Follower:
    """Reads all partitions of some topics from their beginning, and knows when it has read what was there at first."""

    def __init__(self, *, kafka: Kafka, topics: Sequence[str]) -> None:
        configuration: dict[str, Any] = {
            "isolation.level": "read_committed",
            **kafka.connection(),
            "group.id": f"{kafka.group_prefix}-unused",
            "enable.auto.commit": False,
            "log_level": 3,
            "error_cb": lambda error: None,  # the intake tells of brokers that are away, once
        }
        self._consumer = Consumer(configuration)
        self._topics = topics
        self._ends: dict[Place, int] = {}
        self._opened = False

    def open(self) -> None:
        """Begin at the beginning; raises `Unavailable`. A topic that does not exist yet is followed once it does."""
        try:
            known = self._consumer.list_topics(timeout=TIMEOUT_S).topics
            places = [Place(t, p) for t in self._topics if t in known for p in known[t].partitions]
            for place in places:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=TIMEOUT_S)
                if high > low:
                    self._ends[place] = high
        except KafkaException as error:
            raise Unavailable(f"Kafka should tell its topics' ends. Found: {error.args[0].str()}") from error
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in places])
        self._opened = len({place.topic for place in places}) == len(self._topics)

    @property
    def behind(self) -> int:
        """In how many partitions something that was there at first is still unread."""
        return len(self._ends)

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """What has come since; asks anew for topics that did not exist."""
        if not self._opened:
            self.open()
        records = []
        for message in self._consumer.consume(records_max, wait_ms / 1000):
            if error := message.error():
                log.warning("Kafka has no record now, reading goes on by itself: %s", error.str())
                continue
            place = Place(message.topic() or "", message.partition() or 0)
            offset, value = message.offset() or 0, as_bytes(message.value())
            records.append(Record(place, offset, as_bytes(message.key()), value, [], message.timestamp()[1]))
            if offset + 1 >= self._ends.get(place, offset + 2):
                del self._ends[place]
        return records

    def close(self) -> None:
        self._consumer.close()
