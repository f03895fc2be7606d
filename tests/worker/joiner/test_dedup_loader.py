"""The joiner's published outputs are loaded from its own topics, from the earliest record that is read again."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from contract.joining.output import JoinOutput, OrphanLabel
from contract.messages import to_json, to_msgpack
from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings, TopicSettings
from contract.settings.worker import FeedbackSettings
from contract.units import HOUR_MS
from devservers.apache_kafka import ApacheKafka
from tests.contract.joining.builders import make_joiner, make_label, make_row
from transport.log_reader import LogReader
from transport.records import PartitionOffsets, TopicPartition
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import TIMESTAMP_LEAD_MS, DedupLoader, make_shard_header

pytestmark = pytest.mark.apache_kafka
NOW_MS: Final = 1_764_000_000_000


class DedupTopics:
    """Topics of a joiner, with records at given Kafka times."""

    def __init__(self, kafka: ApacheKafka, prefix: str) -> None:
        topics = {kind: f"{prefix}{kind}" for kind in ("labels", "feedback", "judgements")}
        kafka.create_topics(dict.fromkeys(topics.values(), 4))
        self.labels = TopicPartition(topics["labels"], 0)
        self.settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix=prefix),
            topics=TopicSettings(**topics),  # type: ignore[arg-type]
            feedback=FeedbackSettings(said_max=1_000),
        )
        self._transactional = {"bootstrap.servers": kafka.bootstrap, "transactional.id": prefix, "log_level": 0}

    def load_published(
        self, committed: int | None, end: int, *, on_poll: Callable[[], None] = lambda: None
    ) -> PublishedOutputs:
        loader = DedupLoader(settings=self.settings, on_poll=on_poll)
        return loader.load({self.labels: PartitionOffsets(committed, 0, end)})[0]

    def send(
        self, topic: str, values: Sequence[tuple[bytes, int]], *, commits: bool = True, shard: int | None = None
    ) -> None:
        producer = Producer(self._transactional)
        producer.init_transactions(30)
        producer.begin_transaction()
        for value, ms in values:
            headers: Any = [] if shard is None else [make_shard_header(shard)]
            producer.produce(topic, value, partition=0, timestamp=ms, headers=headers)
        assert producer.flush(30) == 0
        if commits:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    def begin(self, records: Sequence[tuple[str, bytes]]) -> Producer:
        """Write records in a transaction that stays open."""
        producer = Producer(self._transactional)
        producer.init_transactions(30)
        producer.begin_transaction()
        for topic, value in records:
            producer.produce(topic, value, partition=0)
        assert producer.flush(30) == 0
        return producer

    def send_output(self, output: JoinOutput, ms: int, *, commits: bool = True, shard: int | None = None) -> None:
        topics = self.settings.topics
        self.send(topics.feedback, [(to_msgpack(e), ms) for e in output.examples], commits=commits, shard=shard)
        self.send(topics.judgements, [(to_json(j), ms) for j in output.judgements], commits=commits, shard=shard)


@pytest.fixture
def topics(apache_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> DedupTopics:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return DedupTopics(apache_kafka, topic_prefix)


def make_judgement_output(ident: str) -> JoinOutput:
    return make_joiner(make_row("order", ident, 0), make_label(1, 1, judged_event_id=ident)).drain()


def make_orphan(row_id: str) -> OrphanLabel:
    return OrphanLabel("fraud", row_id, None)


def test_outputs_since_the_earliest_reread_record_are_loaded(topics: DedupTopics) -> None:
    # given labels of which the second is read again, and outputs just before and at the time that is searched from
    topics.send(topics.labels.topic, [(b"{}", NOW_MS), (b"{}", NOW_MS + 10 * HOUR_MS), (b"{}", NOW_MS + 20 * HOUR_MS)])
    topics.send_output(make_judgement_output("early"), NOW_MS + 10 * HOUR_MS - TIMESTAMP_LEAD_MS - 1)
    topics.send_output(make_judgement_output("late"), NOW_MS + 10 * HOUR_MS - TIMESTAMP_LEAD_MS)
    # when
    published = topics.load_published(1, 3)
    # then
    assert published.without_published(make_judgement_output("late")) == JoinOutput()
    assert published.without_published(make_judgement_output("early")) == make_judgement_output("early")
    assert published.without_published(JoinOutput(orphans=[make_orphan("late"), make_orphan("gone")])).orphans == [
        make_orphan("gone")
    ]
    assert len(published) == 2


def test_a_group_without_commits_loads_all_published_outputs(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    topics.send_output(make_judgement_output("o"), NOW_MS)

    assert topics.load_published(None, 1).without_published(make_judgement_output("o")) == JoinOutput()


def test_outputs_of_aborted_transactions_are_not_loaded(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    topics.send_output(make_judgement_output("o"), NOW_MS, commits=False)

    assert topics.load_published(0, 1).without_published(make_judgement_output("o")) == make_judgement_output("o")


def test_outputs_of_other_shards_are_not_loaded(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    topics.send_output(make_judgement_output("own"), NOW_MS, shard=0)
    topics.send_output(make_judgement_output("other"), NOW_MS, shard=1)

    published = topics.load_published(0, 1)

    assert published.without_published(make_judgement_output("own")) == JoinOutput()
    assert published.without_published(JoinOutput(orphans=[make_orphan("other")])).orphans == [make_orphan("other")]


def test_a_transaction_that_is_still_open_is_waited_for(topics: DedupTopics) -> None:
    # given an earlier joiner, whose offsets are committed before its outputs are readable
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    output = make_judgement_output("o")
    producer = topics.begin([(topics.settings.topics.judgements, to_json(j)) for j in output.judgements])
    polls = list[int]()
    # when the outputs are loaded, and its transaction ends only later
    published = topics.load_published(0, 1, on_poll=lambda: end_once(producer, polls))
    # then they are known
    assert published.without_published(output).judgements == []


def end_once(producer: Producer, polls: list[int]) -> None:
    polls.append(1)
    if len(polls) == 5:
        producer.commit_transaction(30)


def test_without_records_to_reread_nothing_is_loaded(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    topics.send_output(make_judgement_output("o"), NOW_MS)

    assert len(topics.load_published(2, 2)) == 0


def test_records_of_other_programs_are_skipped(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"{}", NOW_MS)])
    for topic in (topics.settings.topics.feedback, topics.settings.topics.judgements):
        topics.send(topic, [(junk, NOW_MS) for junk in (b"", b"\xff", b"[" * 10_000, b"{}", b"\x91" * 10_000)])
    topics.send_output(make_judgement_output("o"), NOW_MS)

    assert len(topics.load_published(0, 1)) == 2


def test_earliest_timestamp_is_the_lowest_over_all_partitions(topics: DedupTopics) -> None:
    topics.send(topics.labels.topic, [(b"a", NOW_MS + 5), (b"b", NOW_MS + 7)])
    topics.send(topics.settings.topics.feedback, [(b"c", NOW_MS + 6)])
    feedback = TopicPartition(topics.settings.topics.feedback, 0)
    reader = LogReader(kafka=topics.settings.kafka)

    earliest = [
        reader.earliest_timestamp_ms(starts, latest_ms=2 * NOW_MS)
        for starts in ({topics.labels: 0, feedback: 0}, {topics.labels: 1, feedback: 0})
    ]
    without_records = [
        reader.earliest_timestamp_ms(starts, latest_ms=2 * NOW_MS)
        for starts in ({topics.labels: 2}, {topics.labels: 3}, {})
    ]

    reader.close()
    assert earliest == [NOW_MS + 5, NOW_MS + 6]
    assert without_records == [None, None, None]
