"""What a joiner has said is read back from its own topics, from where it may matter."""

from collections.abc import Sequence
from typing import Final

import pytest
from confluent_kafka import Producer

from contract.joining.output import Orphan, Output
from contract.rows import to_json, to_msgpack
from contract.settings import Feedback, Settings, Topics
from contract.settings import Kafka as KafkaSettings
from demo.servers.apache_kafka import ApacheKafka
from tests.contract.joining.shop import joiner, label, row
from worker.follower import Log
from worker.intake import Held, Place
from worker.recall import AHEAD_MS, Recall
from worker.said import Said

pytestmark = pytest.mark.apache_kafka
HOUR_MS: Final = 3_600_000
NOW_MS: Final = 1_764_000_000_000


class Scene:
    """Topics of a joiner, with records at stated times."""

    def __init__(self, kafka: ApacheKafka, prefix: str) -> None:
        topics = {kind: f"{prefix}{kind}" for kind in ("labels", "feedback", "judgements")}
        kafka.create_topics(dict.fromkeys(topics.values(), 4))
        self.labels = Place(topics["labels"], 0)
        self.settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix=prefix),
            topics=Topics(**topics),  # type: ignore[arg-type]
            feedback=Feedback(said_max=1_000),
        )
        self._transactional = {"bootstrap.servers": kafka.bootstrap, "transactional.id": prefix, "log_level": 0}

    def read_from(self, committed: int | None, end: int) -> Said:
        recall = Recall(settings=self.settings, meanwhile=lambda: None)
        return recall.said({self.labels: Held(committed, 0, end)})

    def send(self, topic: str, values: Sequence[tuple[bytes, int]], *, commits: bool = True) -> None:
        producer = Producer(self._transactional)
        producer.init_transactions(30)
        producer.begin_transaction()
        for value, ms in values:
            producer.produce(topic, value, partition=0, timestamp=ms)
        assert producer.flush(30) == 0
        (producer.commit_transaction if commits else producer.abort_transaction)(30)

    def say(self, output: Output, ms: int, *, commits: bool = True) -> None:
        self.send(self.settings.topics.feedback, [(to_msgpack(e), ms) for e in output.examples], commits=commits)
        self.send(self.settings.topics.judgements, [(to_json(j), ms) for j in output.judgements], commits=commits)


@pytest.fixture
def scene(apache_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return Scene(apache_kafka, topic_prefix)


def judged(ident: str) -> Output:
    return joiner(row("order", ident, 0), label(1, 1, of=ident)).take()


def orphan(row_id: str) -> Orphan:
    return Orphan("fraud", row_id, None)


def test_what_was_said_since_the_earliest_record_that_is_read_again_is_known(scene: Scene) -> None:
    # given labels of which the second is read again, and what was said before and after it
    scene.send(scene.labels.topic, [(b"{}", NOW_MS), (b"{}", NOW_MS + 10 * HOUR_MS), (b"{}", NOW_MS + 20 * HOUR_MS)])
    scene.say(judged("early"), NOW_MS + 10 * HOUR_MS - AHEAD_MS - 1)
    scene.say(judged("late"), NOW_MS + 10 * HOUR_MS - AHEAD_MS)
    # when
    said = scene.read_from(1, 3)
    # then
    assert said.fresh(judged("late")) == Output()
    assert said.fresh(judged("early")) == judged("early")
    assert said.fresh(Output(orphans=[orphan("late"), orphan("gone")])).orphans == [orphan("gone")]
    assert len(said) == 2


def test_a_group_that_never_committed_reads_all_that_was_ever_said(scene: Scene) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.say(judged("o"), NOW_MS)

    assert scene.read_from(None, 1).fresh(judged("o")) == Output()


def test_what_was_taken_back_was_not_said(scene: Scene) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.say(judged("o"), NOW_MS, commits=False)

    assert scene.read_from(0, 1).fresh(judged("o")) == judged("o")


def test_where_nothing_is_read_again_nothing_needs_to_be_known(scene: Scene) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    scene.say(judged("o"), NOW_MS)

    assert len(scene.read_from(2, 2)) == 0


def test_records_that_no_joiner_has_written_are_passed(scene: Scene) -> None:
    scene.send(scene.labels.topic, [(b"{}", NOW_MS)])
    for topic in (scene.settings.topics.feedback, scene.settings.topics.judgements):
        scene.send(topic, [(junk, NOW_MS) for junk in (b"", b"\xff", b"[" * 10_000, b"{}", b"\x91" * 10_000)])
    scene.say(judged("o"), NOW_MS)

    assert len(scene.read_from(0, 1)) == 2


def test_the_first_time_is_that_of_the_earliest_record_among_the_partitions(scene: Scene) -> None:
    scene.send(scene.labels.topic, [(b"a", NOW_MS + 5), (b"b", NOW_MS + 7)])
    scene.send(scene.settings.topics.feedback, [(b"c", NOW_MS + 6)])
    feedback, log = Place(scene.settings.topics.feedback, 0), Log(kafka=scene.settings.kafka)

    found = [log.first_ms(starts) for starts in ({scene.labels: 0, feedback: 0}, {scene.labels: 1, feedback: 0})]
    nothing = [log.first_ms(starts) for starts in ({scene.labels: 2}, {scene.labels: 3}, {})]

    log.close()
    assert found == [NOW_MS + 5, NOW_MS + 6]
    assert nothing == [None, None, None]
