"""Consumes every topic that shopstream writes, and counts the records."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing

import msgspec
from msgspec import Struct

from contract.messages import DEAD_LETTER_HEADER, Decision, Example, read_dead_letter, read_decision, read_example
from contract.settings.servers import KafkaSettings, TopicSettings
from transport.log_reader import LogReader, TopicTailer
from transport.records import Record


class RowKind(Struct):
    """All of a scored row that is counted."""

    kind: str


read_row_kind = msgspec.msgpack.Decoder(RowKind).decode
BATCH_MAX = 2_000
POLL_MS = 20


class OutputConsumer:
    """Outputs read so far: decisions and examples by id (duplicates count once), dead letters by reason, rows by kind.

    `last_example_s`: when the last example was read, by the monotonic clock.
    """

    def __init__(self, *, kafka: KafkaSettings, topics: TopicSettings) -> None:
        self.decisions: dict[str, Decision] = {}
        self.examples: dict[str, Example] = {}
        self.dead_letters: Counter[str] = Counter()
        self.scored: Counter[str] = Counter()
        self.last_example_s: float | None = None
        self._topics = topics
        self._kafka = kafka
        output_topics = (topics.decisions, topics.dead_letters, topics.scored, topics.feedback)
        self._tailer = TopicTailer(kafka=kafka, topics=output_topics)

    def poll(self) -> None:
        """Read all new records."""
        while records := self._tailer.poll(BATCH_MAX, POLL_MS):
            for record in records:
                self._record(record)

    def count_labels(self) -> Counter[str]:
        """Number of examples with a label, by task."""
        return Counter(task for example in self.examples.values() for task in example.labels)

    def find_trimmed_partitions(self, topics: Iterable[str]) -> list[str]:
        """Partitions whose first records the broker has already deleted."""
        with closing(LogReader(kafka=self._kafka)) as reader:
            ranges = reader.fetch_offset_ranges(topics)
        return [str(partition) for partition, offsets in sorted(ranges.items()) if offsets.low > 0]

    def close(self) -> None:
        self._tailer.close()

    def _record(self, record: Record) -> None:
        topic, value = record.topic_partition.topic, record.value or b""
        if topic == self._topics.scored:
            self.scored[read_row_kind(value).kind] += 1
        elif topic == self._topics.decisions:
            decision = read_decision(value)
            self.decisions[decision.event_id] = decision
        elif topic == self._topics.feedback:
            example = read_example(value)
            self.last_example_s = time.monotonic()
            previous = self.examples.get(example.example_id)
            if previous is None or example.revision >= previous.revision:
                self.examples[example.example_id] = example
        else:
            headers = dict(record.headers)
            self.dead_letters[read_dead_letter(headers[DEAD_LETTER_HEADER] or b"").reason] += 1
