"""Records that a topic does not take, for their size or another reason: each is replaced or left out by itself."""

import logging
from collections import Counter
from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from contract.errors import ShopstreamError
from worker.kafka.outgoing import OutgoingRecord, Refusal
from worker.kafka.record_limits import RecordLimits
from worker.ops import metrics

log = logging.getLogger(__name__)
TOO_LARGE: Final = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
REFUSED: Final = (KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP)  # this record, not those sent with it
# What happens to the other records of a batch, or of a producer that is reset.
NO_REASON: Final = (KafkaError._INVALID_DIFFERENT_RECORD, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
METADATA_S: Final = 2.0
SMALL_RECORD_MARGIN: Final = 2_000  # for a key and what surrounds a record


class FailedDelivery(NamedTuple):
    """A record that the client could not deliver."""

    error: KafkaError
    topic: str
    value: bytes | None


class RecordRefused(ShopstreamError):
    """A topic does not take a record for which there is no replacement; the message names both sizes."""


class RefusedRecords:
    """Knows which records are refused, and counts what became of them once their transaction is committed."""

    def __init__(self, limits: RecordLimits) -> None:
        self._limits = limits
        # Of the batch being published, by topic and value: records that are refused, and those among which one is.
        self._reasons = dict[tuple[str, bytes | None], str]()
        self._suspects = set[tuple[str, bytes | None]]()
        self._outcomes = Counter[tuple[str, str]]()  # of the open transaction, by topic and outcome
        self.small_bytes = 0  # a record whose value has at most this many bytes, and no headers, is accepted
        self.begin()

    def begin(self) -> None:
        """A transaction begins."""
        self._outcomes.clear()
        self.small_bytes = -1 if self._suspects or self._reasons else self._limits.smallest - SMALL_RECORD_MARGIN

    def fit(self, record: OutgoingRecord) -> OutgoingRecord | None:
        """What to write for a record: itself, its replacement, or None; raises `RecordRefused`."""
        topic, outcome = record.topic, ""
        fitted: OutgoingRecord | None = record
        while fitted is not None and (refusal := self._find_refusal(fitted)):
            if fitted.replace is None:
                raise RecordRefused(refusal.reason)
            fitted = fitted.replace(fitted, refusal)
            outcome = "left_out" if fitted is None else "replaced"
        if outcome:
            self._outcomes[topic, outcome] += 1
        return fitted

    @property
    def has_suspects(self) -> bool:
        return bool(self._suspects)

    def is_suspect(self, topic: str, value: bytes | None) -> bool:
        """Whether to send this record alone: the broker refused it together with others, and does not say which."""
        return (topic, value) in self._suspects

    def learn(self, failures: Iterable[FailedDelivery]) -> str:
        """Learn from failed deliveries what to refuse when the batch is published again; the reasons in words."""
        causes = [failure for failure in failures if failure.error.code() not in NO_REASON]
        for topic in {failure.topic for failure in causes if failure.error.code() in TOO_LARGE}:
            self._limits.lower(topic)
        refused = [failure for failure in causes if failure.error.code() in REFUSED]
        for error, topic, value in refused:
            if len(refused) == 1 or self.is_suspect(topic, value):
                self._reasons[topic, value] = f"`{topic}` should take a record. Found: {error.str()}"
        self._suspects.update((topic, value) for _, topic, value in refused)
        return ", ".join(sorted({f"`{topic}`: {error.str()}" for error, topic, _ in causes}))

    def commit(self) -> None:
        """The transaction is committed."""
        for (topic, outcome), count in self._outcomes.items():
            metrics.REFUSED_RECORDS.labels(topic, outcome).inc(count)
            log.warning("%d records were refused by `%s` and are %s.", count, topic, outcome.replace("_", " "))
        self._reasons.clear()
        self._suspects.clear()

    def _find_refusal(self, record: OutgoingRecord) -> Refusal | None:
        if reason := self._reasons.get((record.topic, record.value)):
            return Refusal(0, reason)
        size = record.count_bytes()
        if size > self._limits.bytes_max(record.topic):
            self._limits.ask(record.topic)
        bytes_max = self._limits.bytes_max(record.topic)
        if size <= bytes_max:
            return None
        return Refusal(
            bytes_max, f"`{record.topic}` should take a record of {size} bytes. Found a limit of {bytes_max}."
        )


def describe_missing_topics(client: Producer, topics: Set[str]) -> str:
    """Which of these topics the brokers do not list for this client, for the end of a message; nothing: all, or none.

    The client waits half a minute for a topic before it fails a record for it.
    """
    try:
        missing = topics - client.list_topics(timeout=METADATA_S).topics.keys()
    except KafkaException:
        return ""
    names = ", ".join(f"`{topic}`" for topic in sorted(missing))
    return f", and no topic {names}: it should exist, and this client be authorised for it" if missing else ""
