"""The joiner executes erasures between batches, and its commits say how far it has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from contract.events.model import Erasure
from contract.mapping.event_topics import EventTopics
from contract.messages import to_json, to_msgpack
from contract.profiles.erasures import Erasures
from contract.settings.servers import KafkaSettings, TopicSettings
from devservers.apache_kafka import ApacheKafka
from tests.contract.joining.builders import (
    make_click,
    make_impression,
    make_label,
    make_row,
    minutes_to_ms,
)
from tests.kafka import BlockingProducer
from tests.worker.joiner.test_pipeline import CLICKS, IMPRESSIONS, LABELS, SCORED, JoinerHarness
from tests.worker.joiner.test_worker import JoinerProcess, JoinerTopics
from transport.log_reader import TopicTailer
from transport.records import Record, TopicPartition
from worker.erasure.kafka_owners import ErasedOffsets, JoinerOwners
from worker.erasure.topic import ErasureConsumer
from worker.joiner.commit_metadata import decode_metadata
from worker.joiner.erasures import JoinerErasures
from worker.kafka.admin import KafkaAdmin

ERASURES: Final = TopicPartition("shop.erasures", 2)
ERASED_MS: Final = minutes_to_ms(1)


class FakeTailer(TopicTailer):
    """An erasures topic of one partition, which a test appends to."""

    def __init__(self) -> None:
        self.new = list[Record]()
        self.count = 0

    def erase(self, user: str, ts_ms: int = ERASED_MS) -> None:
        value = to_json(Erasure(event_id=f"e-{user}", user_id=user, ts_ms=ts_ms))
        self.new.append(Record(ERASURES, self.count, user.encode(), value, (), ts_ms))
        self.count += 1

    @property
    def topics(self) -> list[str]:  # type: ignore[override]
        return [ERASURES.topic]

    @property
    def partitions_behind(self) -> int:
        return 0

    def topic_id(self, topic: str) -> str | None:
        return "an-id"

    def take_restarted(self) -> set[str]:
        return set()

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        new, self.new = self.new, []
        return new


@pytest.fixture
def tailer() -> FakeTailer:
    return FakeTailer()


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, tailer: FakeTailer) -> JoinerHarness:
    monkeypatch.setenv("SHOPSTREAM_CONFIG", "shop.toml")
    return JoinerHarness(JoinerErasures(ErasureConsumer(tailer=tailer, erasures=Erasures())))


def read_committed(harness: JoinerHarness) -> dict[TopicPartition, ErasedOffsets]:
    """How far erasures were executed, as the commit of each partition says."""
    return {partition: decode_metadata(text).erased for partition, text in harness.producer.metadata.items()}


def test_a_waiting_list_of_an_erased_person_gives_no_example(harness: JoinerHarness, tailer: FakeTailer) -> None:
    # given a list of each of two users
    lists = [make_row("recommendation", user, 0, ("a",), user=user) for user in ("u", "v")]
    harness.consumer.put(SCORED, *map(to_msgpack, lists))
    harness.pipeline.step()
    # when one is erased, and both are shown their list and click
    tailer.erase("u")
    for n, user in enumerate(("u", "v")):
        harness.consumer.put(IMPRESSIONS, to_json(make_impression(2 + n, "a", recommendation_id=user, user=user)))
        harness.consumer.put(CLICKS, to_json(make_click(4 + n, "a", recommendation_id=user, user=user)))
    harness.pipeline.step()
    # then
    assert harness.list_published_revisions() == [("v~a", 1)]


def test_covered_records_that_are_read_later_are_skipped(harness: JoinerHarness, tailer: FakeTailer) -> None:
    tailer.erase("u")
    harness.pipeline.step()

    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 0)), to_msgpack(make_row("order", "p", 1.1)))
    harness.consumer.put(LABELS, *(to_json(make_label(4, 1, judged_event_id=ident)) for ident in ("o", "p")))
    harness.pipeline.step()

    assert harness.list_published_revisions() == [("p", 2)]


def test_an_idle_joiner_commits_new_progress_once(harness: JoinerHarness, tailer: FakeTailer) -> None:
    # given a joiner that has read all there is
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 0)))
    harness.pipeline.step()
    # when
    tailer.erase("stranger")
    harness.pipeline.step()
    # then
    assert read_committed(harness) == {SCORED: ErasedOffsets("an-id", {"2": 1})}
    # and the same progress is not committed again
    harness.producer.committed.clear()
    harness.pipeline.step()
    assert harness.producer.committed == {}


def test_partitions_that_only_an_earlier_run_has_read_are_committed_too(
    monkeypatch: pytest.MonkeyPatch, tailer: FakeTailer
) -> None:
    # given positions and metadata of an earlier run
    harness = JoinerHarness(JoinerErasures(ErasureConsumer(tailer=tailer, erasures=Erasures())))
    harness.consumer.committed = {LABELS: 0}
    harness.consumer.metadata = {LABELS: '{"orphans":{"fraud":3},"read":7,"writer":"former"}'}
    # when
    tailer.erase("u")
    harness.pipeline.step()
    # then they stay, with the progress of this one
    metadata = decode_metadata(harness.producer.metadata[LABELS])
    assert harness.producer.committed == {LABELS: 0}
    assert metadata.erased == ErasedOffsets("an-id", {"2": 1})
    assert (metadata.orphans, metadata.read) == ({"fraud": 3}, 7)


def test_rows_of_a_revoked_shard_are_erased_as_well(harness: JoinerHarness, tailer: FakeTailer) -> None:
    # given a shard that is revoked while it has a waiting row
    partitions = sorted(harness.consumer.assignment)
    harness.consumer.put(SCORED, to_msgpack(make_row("order", "o", 0)))
    harness.pipeline.step()
    harness.pipeline.on_revoked(partitions)
    # when
    tailer.erase("u")
    harness.pipeline.step()
    harness.rebalance(*partitions, revoke=False)
    harness.consumer.put(LABELS, to_json(make_label(4, 1)))
    harness.pipeline.step()
    # then
    assert harness.list_published_revisions() == []


@pytest.fixture
def kafka(apache_kafka: ApacheKafka, topic_prefix: str) -> JoinerTopics:
    return JoinerTopics(apache_kafka, topic_prefix)


@pytest.fixture
def process(kafka: JoinerTopics, tmp_path: Path) -> Iterator[JoinerProcess]:
    process = JoinerProcess(kafka, tmp_path / "joiner.log")
    yield process
    process.kill()


# librdkafka's mock cluster keeps no metadata of offsets that are committed in a transaction.
@pytest.mark.apache_kafka
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
def test_an_erased_person_becomes_no_example_and_the_group_says_so(
    kafka: JoinerTopics, process: JoinerProcess, restarts: bool
) -> None:
    # given a joiner with waiting lists and orders of two users
    rows = [
        row
        for user in ("u", "v")
        for row in (
            make_row("recommendation", f"r{user}", 0, ("a",), user=user),
            make_row("order", f"o{user}", 0.5, user=user),
        )
    ]
    kafka.send({TopicPartition("scored", 0): rows})
    process.start()
    process.wait_for(lambda: read_joiner_owners(kafka))
    if restarts:
        process.kill()
    # when one is erased
    with BlockingProducer(kafka.bootstrap) as producer:
        erasure = Erasure(event_id="e", user_id="u", ts_ms=ERASED_MS)
        producer.send(f"{kafka.prefix}erasures", [("u", to_json(erasure))], partition=3)
    if restarts:
        process.start()
    # then the commits say so, in every partition that has any
    process.wait_for(lambda: is_executed(kafka))
    # and what happens afterwards makes examples of the other alone
    kafka.send(
        {
            TopicPartition("impressions", 0): [
                make_impression(2, "a", recommendation_id=f"r{user}", user=user) for user in ("u", "v")
            ],
            TopicPartition("clicks", 0): [
                make_click(3, "a", recommendation_id=f"r{user}", user=user) for user in ("u", "v")
            ],
            TopicPartition("labels", 0): [
                make_label(4, 1, judged_event_id=f"o{user}", user=user, ident=f"l{user}") for user in ("u", "v")
            ],
        }
    )
    process.wait_for(lambda: len(kafka.read_examples()) >= 2 and kafka.read_judgements())
    assert {example.user_id for example in kafka.read_examples()} == {"v"}
    assert {judgement.user_id for judgement in kafka.read_judgements()} == {"v"}


def read_joiner_owners(kafka: JoinerTopics) -> dict[str, dict[str, int]]:
    topics = TopicSettings(**{kind: f"{kafka.prefix}{kind}" for kind in ("scored", "labels", "clicks", "erasures")})  # type: ignore[arg-type]
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix=f"{kafka.prefix}group")
    owners = JoinerOwners(topics=EventTopics(topics), admin=KafkaAdmin(kafka=settings)).read_offsets()
    return {owner: dict(offsets) for owner, offsets in owners.items()}


def is_executed(kafka: JoinerTopics) -> bool:
    """Whether the only erasure is executed in every partition that the joiner has committed."""
    owners = read_joiner_owners(kafka)
    return bool(owners) and all(
        any(name.endswith("/3") and offset == 1 for name, offset in offsets.items()) for offsets in owners.values()
    )
