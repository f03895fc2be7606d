"""Consumes every topic that shopstream writes, and counts the records."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from contract.messages import DEAD_LETTER_HEADER, Decision, Example, read_dead_letter, read_decision, read_example
from contract.settings.servers import KafkaSettings, TopicSettings

BATCH_MAX = 2_000
TIMEOUT_S = 5.0


class OutputConsumer:
    """Outputs read so far: decisions and examples by id (duplicates count once), dead letters by reason.

    `last_example_s`: when the last example was read, by the monotonic clock.
    """

    def __init__(self, *, kafka: KafkaSettings, topics: TopicSettings) -> None:
        self.decisions: dict[str, Decision] = {}
        self.examples: dict[str, Example] = {}
        self.dead_letters: Counter[str] = Counter()
        self.scored = 0
        self.last_example_s: float | None = None
        self._topics = topics
        self._kafka = kafka
        self._consumer = self._open_consumer()
        output_topics = (topics.decisions, topics.dead_letters, topics.scored, topics.feedback)
        self._consumer.assign(
            [TopicPartition(topic, p, OFFSET_BEGINNING) for topic in output_topics for p in range(topics.partitions)]
        )

    def poll(self) -> None:
        """Read all new records."""
        while messages := self._consumer.consume(BATCH_MAX, 0.02):
            for message in messages:
                if message.error() is None:
                    self._record(message)

    def count_labels(self) -> Counter[str]:
        """Number of examples with a label, by task."""
        return Counter(task for example in self.examples.values() for task in example.labels)

    def find_trimmed_partitions(self, topics: Iterable[str]) -> list[str]:
        """Partitions whose first records the broker has already deleted."""
        # A consumer without an assignment: the broker answers after a pending fetch, which waits for records.
        with closing(self._open_consumer()) as consumer:
            partitions = [TopicPartition(topic, n) for topic in topics for n in range(self._topics.partitions)]
            return [
                f"{partition.topic}/{partition.partition}"
                for partition in partitions
                if consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)[0] > 0
            ]

    def close(self) -> None:
        self._consumer.close()

    def _open_consumer(self) -> Consumer:
        return Consumer(
            {
                **self._kafka.connection(),
                "group.id": "demo-outputs",  # required by the client; never created, because nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "log_level": 3,
                "error_cb": lambda error: None,
            }
        )

    def _record(self, message: Message) -> None:
        topic, value = message.topic(), message.value() or b""
        if topic == self._topics.scored:
            self.scored += 1
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
            headers = dict(message.headers() or ())
            self.dead_letters[read_dead_letter(headers[DEAD_LETTER_HEADER] or b"").reason] += 1
