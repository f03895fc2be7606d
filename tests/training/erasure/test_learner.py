"""The learner forgets erased people, and says so to Kafka after its files hold nothing of them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import TopicPartition as KafkaPartition

from contract.events.model import Erasure
from contract.messages import read_example, to_json, to_msgpack
from contract.settings.reading import Settings
from contract.settings.servers import KafkaSettings, TopicSettings
from devservers.apache_kafka import ApacheKafka
from model.checkpoint import write_checkpoint
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer, make_settings, open_consumer, recreate_topics
from tests.model.small import TASKS
from tests.training.counting_learner import export_without_graphs
from tests.training.erasure.test_checkpoints import ALL_MS, is_free, make_checkpoint
from tests.training.examples import make_rows
from training.__main__ import parse_arguments
from training.commands import follow
from training.erasure.checkpoints import CheckpointEraser
from training.erasure.execution import ErasureExecution
from training.erasure.topic import ErasureTopic
from training.feedback.feedback_reader import FeedbackBatch
from training.online.rejected_updates import RejectedUpdate
from training.online.update import UpdateResult
from transport.group_offsets import query_committed
from transport.records import TopicPartition


@pytest.fixture
def settings(broker: KafkaBroker, topic_prefix: str) -> Settings:
    """A shop with four partitions of each topic."""
    topics = TopicSettings(erasures=f"{topic_prefix}erasures", feedback=f"{topic_prefix}feedback")
    broker.create_topics({topics.erasures: 4, topics.feedback: 4})
    kafka = make_settings(broker, topic_prefix)
    return Settings(tasks=TASKS).model_copy(update={"kafka": kafka, "topics": topics})


@pytest.fixture
def producer(broker: KafkaBroker) -> Iterator[BlockingProducer]:
    with BlockingProducer(broker.bootstrap) as producer:
        yield producer


def erase(producer: BlockingProducer, settings: Settings, users: Iterable[str], ts_ms: int = ALL_MS) -> None:
    values = [(user, to_json(Erasure(event_id=f"e-{user}", user_id=user, ts_ms=ts_ms))) for user in users]
    producer.send(settings.topics.erasures, values)


def open_execution(settings: Settings, bundles: Path) -> ErasureExecution:
    return ErasureExecution(settings=settings, process="learner", erase=CheckpointEraser(bundles=bundles).erase)


def begin_learner(bundles: Path) -> Path:
    """The folder of bundles, in which a first model serves."""
    checkpoint = make_checkpoint()
    write_checkpoint(bundles, checkpoint)
    export_without_graphs(checkpoint, bundles, {})
    return bundles


def read_committed(settings: Settings) -> Mapping[TopicPartition, int]:
    """What the learner has committed in the partitions of the erasures topic."""
    with open_consumer(settings.kafka.bootstrap_servers, settings.kafka.group("learner")) as consumer:
        partitions = [KafkaPartition(settings.topics.erasures, n) for n in range(4)]
        query_committed(consumer, partitions)
        return {TopicPartition(tp.topic, tp.partition): tp.offset for tp in consumer.committed(partitions, 20)}


def test_the_learner_commits_what_it_has_erased_from_its_files(
    settings: Settings, producer: BlockingProducer, tmp_path: Path
) -> None:
    # given a learner that started before any erasure
    path = write_checkpoint(tmp_path, make_checkpoint())
    with closing(open_execution(settings, tmp_path)) as erasures:
        erasures.apply()
        assert set(read_committed(settings).values()) == {0}
        assert not is_free(path)
        # when
        erase(producer, settings, ["u3", "stranger"])
        erasures.apply()
        # then
        assert is_free(path)
        assert sum(read_committed(settings).values()) == 2


def test_nothing_is_committed_before_the_files_are_free(
    settings: Settings, producer: BlockingProducer, tmp_path: Path
) -> None:
    # given
    path = write_checkpoint(tmp_path, make_checkpoint())
    broken = path.with_name("broken.pt")
    broken.write_bytes(b"half")
    erase(producer, settings, ["u3"])
    with closing(open_execution(settings, tmp_path)) as erasures:
        # when
        erasures.apply()
        # then
        assert set(read_committed(settings).values()) == {-1001}
        # and after the file is gone
        broken.unlink()
        erasures.apply()
        assert sum(read_committed(settings).values()) == 1


def test_examples_of_an_erased_person_on_the_topic_are_not_learned(
    settings: Settings, producer: BlockingProducer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    bundles = begin_learner(tmp_path)
    rows = make_rows(70, 5)
    producer.send(settings.topics.feedback, [(row.user_id, to_msgpack(row)) for row in rows])
    erase(producer, settings, ["u3"], rows[35].ts_ms)
    batches = list[FeedbackBatch]()

    def update(checkpoint: object, feedback: FeedbackBatch, *_: object) -> UpdateResult:
        batches.append(feedback)
        return UpdateResult(0, {})

    monkeypatch.setattr(follow, "update", update)
    args = parse_arguments(["follow", "--once", "--bundles", str(bundles)])
    # when
    assert follow.run(args, settings, None) == 0  # type: ignore[arg-type]  # features are not used
    # then
    (batch,) = batches
    expected = {row.example_id for row in rows if row.user_id != "u3" or row.ts_ms > rows[35].ts_ms}
    assert {read_example(value).example_id for value in batch.values} == expected
    assert (len(expected), batch.erased) == (65, 5)


def test_a_batch_of_erased_people_alone_is_skipped_once(
    settings: Settings, producer: BlockingProducer, tmp_path: Path
) -> None:
    # given
    bundles = begin_learner(tmp_path)
    rows = [row for row in make_rows(70, 5) if row.user_id == "u3"]
    producer.send(settings.topics.feedback, [(row.user_id, to_msgpack(row)) for row in rows])
    erase(producer, settings, ["u3"])
    args = parse_arguments(["follow", "--once", "--bundles", str(bundles)])
    # when
    for _ in range(2):
        assert follow.run(args, settings, None) == 0  # type: ignore[arg-type]
    # then
    (skipped,) = (bundles / "refused").glob("*.json")
    positions = msgspec.json.decode(skipped.read_bytes(), type=RejectedUpdate).positions
    read = [offset for partition, offset in positions.items() if partition.startswith(settings.topics.feedback)]
    assert sum(read) == len(rows)


def test_a_topic_that_is_created_later_is_read_from_its_beginning(
    broker: KafkaBroker, producer: BlockingProducer, topic_prefix: str
) -> None:
    name = f"{topic_prefix}late"
    kafka = make_settings(broker)
    with closing(ErasureTopic(kafka=kafka, topic=name)) as topic:
        assert not topic.poll()
        broker.create_topics({name: 4})
        producer.send(name, [("u1", to_json(Erasure(event_id="e", user_id="u1", ts_ms=5))), ("u1", None), ("u1", b"{")])

        assert topic.poll()
        assert topic.erasures.covers("u1", 5)
        assert not topic.erasures.covers("u1", 6)
        assert sum(topic.offsets.values()) == 3


@pytest.mark.apache_kafka
def test_a_recreated_topic_is_read_from_its_beginning_and_adds_to_what_is_known(
    apache_kafka: ApacheKafka, topic_prefix: str
) -> None:
    # given a topic with one erasure
    name = f"{topic_prefix}erasures"
    apache_kafka.create_topics({name: 1})
    kafka = KafkaSettings(bootstrap_servers=apache_kafka.bootstrap)
    with (
        BlockingProducer(apache_kafka.bootstrap) as producer,
        closing(ErasureTopic(kafka=kafka, topic=name)) as topic,
    ):
        producer.send(name, [("u1", to_json(Erasure(event_id="e1", user_id="u1", ts_ms=5)))])
        topic.poll()
        # when it is recreated, and has more erasures than before
        recreate_topics(apache_kafka, {name: 1})
        for user in ("u2", "u3"):
            producer.send(name, [(user, to_json(Erasure(event_id=user, user_id=user, ts_ms=5)))])
        topic.poll()
        # then
        assert [topic.erasures.covers(user, 5) for user in ("u1", "u2", "u3")] == [True] * 3
        assert topic.offsets == {TopicPartition(name, 0): 2}
