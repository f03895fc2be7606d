"""What a joiner has said is read back from its own topics, from where it may matter."""

from collections.abc import Sequence
from typing import Final

import pytest
from confluent_kafka import Producer

from contract.joining.output import JoinOutput, OrphanLabel
from contract.messages import to_json, to_msgpack
from contract.settings import FeedbackSettings, Settings, TopicSettings
from contract.settings import KafkaSettings as KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.contract.joining.builders import make_joiner, make_label, make_row
from transport.log_reader import LogReader
from transport.records import PartitionOffsets, TopicPartition
from worker.joiner.dedup import PublishedOutputs
from worker.joiner.dedup_loader import TIMESTAMP_LEAD_MS, DedupLoader

pytestmark = pytest.mark.apache_kafka
HOUR_MS: Final = 3_600_000
NOW_MS: Final = 1_764_000_000_000


class DedupTopics:
    """Topics of a joiner, with records at stated times."""

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

    def load_published(self, committed: int | None, end: int) -> PublishedOutputs:
        recall = DedupLoader(settings=self.settings, on_chunk=lambda: None)
        return recall.load({self.labels: PartitionOffsets(committed, 0, end)})

    def send(self, topic: str, values: Sequence[tuple[bytes, int]], *, commits: bool = True) -> None:
        producer = Producer(self._transactional)
        producer.init_transactions(30)
        producer.begin_transaction()
        for value, ms in values:
            producer.produce(topic, value, partition=0, timestamp=ms)
        assert producer.flush(30) == 0
        (producer.commit_transaction if commits else producer.abort_transaction)(30)

    def send_output(self, output: JoinOutput, ms: int, *, commits: bool = True) -> None:
        self.send(self.settings.topics.feedback, [(to_msgpack(e), ms) for e in output.examples], commits=commits)
        self.send(self.settings.topics.judgements, [(to_json(j), ms) for j in output.judgements], commits=commits)


@pytest.fixture
def scene(apache_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> DedupTopics:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return DedupTopics(apache_kafka, topic_prefix)


def make_judgement_output(ident: str) -> JoinOutput:
    return make_joiner(make_row("order", ident, 0), make_label(1, 1, judged_event_id=ident)).drain()


def make_orphan(row_id: str) -> OrphanLabel:
    return OrphanLabel("fraud", row_id, None)


def test_what_was_said_since_the_earliest_record_that_is_read_again_is_known(scene: DedupTopics) -> None:
    # given labels of which the second is read again, and what was said before and after it
    scene.send(scene.labels.topic, [(b"{}", NOW_MS), (b"{}", NOW_MS + 10 * HOUR_MS), (b"{}", NOW_MS + 20 * HOUR_MS)])
    scene.send_output(make_judgement_output("early"), NOW_MS + 10 * HOUR_MS - TIMESTAMP_LEAD_MS - 1)
    scene.send_output(make_judgement_output("late"), NOW_MS + 10 * HOUR_MS - TIMESTAMP_LEAD_MS)
    # when
    said = scene.load_published(1, 3)
    # then
    assert said.without_published(make_judgement_output("late")) == JoinOutput()
    assert said.without_published(make_judgement_output("early")) == make_judgement_output("early")
    assert said.without_published(JoinOutput(orphans=[make_orphan("late"), make_orphan("gone")])).orphans == [
        make_orphan("gone")
    ]
    assert len(said) == 2


def test_a_group_that_never_committed_reads_all_that_was_ever_said(scene: DedupTopics) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.send_output(make_judgement_output("o"), NOW_MS)

    assert scene.load_published(None, 1).without_published(make_judgement_output("o")) == JoinOutput()


def test_what_was_taken_back_was_not_said(scene: DedupTopics) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.send_output(make_judgement_output("o"), NOW_MS, commits=False)

    assert scene.load_published(0, 1).without_published(make_judgement_output("o")) == make_judgement_output("o")


def test_where_nothing_is_read_again_nothing_needs_to_be_known(scene: DedupTopics) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.send_output(make_judgement_output("o"), NOW_MS)

    assert len(scene.load_published(2, 2)) == 0


def test_records_that_no_joiner_has_written_are_passed(scene: DedupTopics) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    for topic in (scene.settings.topics.feedback, scene.settings.topics.judgements):
        scene.send(topic, [(junk, NOW_MS) for junk in (b"", b"\xff", b"[" * 10_000, b"{}", b"\x91" * 10_000)])
    scene.send_output(make_judgement_output("o"), NOW_MS)

    assert len(scene.load_published(0, 1)) == 2


def test_the_first_time_is_that_of_the_earliest_record_among_the_partitions(scene: DedupTopics) -> None:
    scene.send(scene.labels.topic, [(b"a", NOW_MS + 5), (b"b", NOW_MS + 7)])
    scene.send(scene.settings.topics.feedback, [(b"c", NOW_MS + 6)])
    feedback, log = TopicPartition(scene.settings.topics.feedback, 0), LogReader(kafka=scene.settings.kafka)

    actual = [
        log.earliest_timestamp_ms(starts) for starts in ({scene.labels: 0, feedback: 0}, {scene.labels: 1, feedback: 0})
    ]
    nothing = [log.earliest_timestamp_ms(starts) for starts in ({scene.labels: 2}, {scene.labels: 3}, {})]

    log.close()
    assert actual == [NOW_MS + 5, NOW_MS + 6]
    assert nothing == [None, None, None]
