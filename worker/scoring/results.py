"""The results of one batch: its answers in the order in which they were computed, and the events that got none."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from types import MappingProxyType

from contract.settings.servers import TopicSettings
from worker.kafka.outgoing import OutgoingRecord, leave_out
from worker.ops import metrics
from worker.records.answers import Answer, AnswerKind, kinds_among
from worker.records.batch import Reject
from worker.records.dead_letters import report_undeliverable


@dataclass(slots=True)
class BatchResults:
    """Answers of any kinds, and the events that could not be scored."""

    answers: list[Answer] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    def extend(self, later: "BatchResults") -> None:
        self.answers += later.answers
        self.rejects += later.rejects

    def to_records(
        self, topics: TopicSettings, partition_counts: Mapping[str, int] = MappingProxyType({})
    ) -> list[OutgoingRecord]:
        """The messages and scored rows to publish; dead letters are made of all rejects of the batch.

        A claimed answer that its topic does not take becomes a dead letter; others are left out.
        A row goes to the partition of its event if both topics have as many partitions: the joiner joins by partition,
        and the event's producer may use another partitioner than this one.
        """
        kinds, letters_topic = kinds_among(self.answers), topics.dead_letters
        topic_of = {kind: topics.topic_name(kind.topic) for kind in kinds if kind.topic}
        records = [
            OutgoingRecord(
                topic_of[answer.kind],
                answer.kind.record_key(answer.message),
                answer.encode_message(),
                (),
                partial(report_undeliverable, letters_topic, answer.scored) if answer.kind.claim else leave_out,
            )
            for answer in self.answers
            if answer.kind.topic
        ]
        scored, scored_count = topics.scored, partition_counts.get(topics.scored)
        like_scored = {topic for topic, count in partition_counts.items() if count == scored_count}
        return records + [
            OutgoingRecord(
                scored,
                answer.scored.user_id,
                answer.encode_row(),
                (),
                leave_out,
                answer.scored.partition if answer.scored.topic in like_scored else -1,
            )
            for answer in self.answers
        ]

    def record_metrics(self, kinds: Iterable[AnswerKind]) -> None:
        """Count published answers. `kinds`: those of this worker, so that each has a series from the start."""
        counts = Counter(map(attrgetter("kind"), self.answers))
        for kind in kinds:
            metrics.ANSWERS.labels(kind.name).inc(counts[kind])
            if kind.count and counts[kind]:
                kind.count(answer.message for answer in self.answers if answer.kind is kind)
