"""One shop writes a topic of answers: another group prefix is refused, also where both start at the same moment."""

import threading
from collections.abc import Mapping

import pytest
from confluent_kafka import KafkaError, KafkaException

from contract.errors import BadConfig, Unavailable
from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.conftest import KafkaBroker
from tests.polling import wait_until
from transport.group_offsets import commit_offsets
from transport.records import TopicPartition
from worker.kafka import topic_owner
from worker.kafka.topic_owner import TopicOwnership, fetch_owner, lock_name


def make_settings(broker: KafkaBroker, prefix: str, former: str = "") -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=broker.bootstrap, group_prefix=prefix, former_group_prefix=former)


def record_owner(broker: KafkaBroker, topic: str, owner: str) -> None:
    """Write a claim without its transaction, which the mock cluster ignores."""
    partition = TopicPartition(topic, 0)
    commit_offsets(make_settings(broker, owner), lock_name(topic), {partition: 0}, {partition: owner})


def claim(kafka: KafkaSettings, topic: str) -> None:
    ownership = TopicOwnership(kafka=kafka, topics=[topic])
    try:
        ownership.claim()
    finally:
        ownership.close()


def test_a_topic_that_another_shop_writes_is_refused_with_its_name(broker: KafkaBroker, topic: str) -> None:
    # given
    record_owner(broker, topic, "north")
    # then
    with pytest.raises(
        BadConfig, match=f"should be `north`, that of the processes that write `{topic}`. Found `south`"
    ):
        claim(make_settings(broker, "south"), topic)
    assert fetch_owner(make_settings(broker, "south"), topic) == "north"


def test_the_shop_that_owns_a_topic_claims_it_again(broker: KafkaBroker, topic: str) -> None:
    record_owner(broker, topic, "north")
    claim(make_settings(broker, "north"), topic)
    assert fetch_owner(make_settings(broker, "north"), topic) == "north"


def test_a_topic_without_an_owner_is_claimed(broker: KafkaBroker, topic: str) -> None:
    claim(make_settings(broker, "north"), topic)
    if isinstance(broker, ApacheKafka):
        assert fetch_owner(make_settings(broker, "south"), topic) == "north"


def test_a_renamed_shop_takes_its_topics_over(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    claim(make_settings(apache_kafka, "north"), topic)
    # when
    claim(make_settings(apache_kafka, "south", former="north"), topic)
    # then
    assert fetch_owner(make_settings(apache_kafka, "south"), topic) == "south"
    with pytest.raises(BadConfig, match="should be `south`"):
        claim(make_settings(apache_kafka, "north"), topic)


def test_of_shops_that_start_at_once_one_owns_the_topic(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given eight shops
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})
    owners, refused = list[str](), list[str]()
    barrier = threading.Barrier(8)

    def start(prefix: str) -> None:
        barrier.wait()
        while True:
            try:
                claim(make_settings(apache_kafka, prefix), topic)
            except Unavailable:
                continue  # fenced by another claim: the worker retries
            except BadConfig:
                refused.append(prefix)
            else:
                owners.append(prefix)
            return

    # when
    threads = [threading.Thread(target=start, args=(f"shop-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # then
    assert owners == [fetch_owner(make_settings(apache_kafka, "other"), topic)]
    assert len(refused) == 7


def test_a_lock_that_the_user_may_not_use_is_said_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    def deny(kafka: KafkaSettings, topic: str) -> str:
        cause = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
        raise Unavailable("Kafka should return the committed offsets.") from cause

    monkeypatch.setattr(topic_owner, "fetch_owner", deny)
    # when
    claim(KafkaSettings(), "shop.decisions")
    # then
    assert "READ on `shop.decisions` and on the group `shop.decisions.owner`" in caplog.text


def test_a_lock_that_cannot_be_reached_is_tried_again_by_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kafka: KafkaSettings, topic: str) -> str:
        raise Unavailable("Kafka should answer.")

    monkeypatch.setattr(topic_owner, "fetch_owner", fail)
    with pytest.raises(Unavailable):
        claim(KafkaSettings(), "shop.decisions")


def test_a_claim_is_committed_again_while_the_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a claim, which the broker would drop after some days
    kafka = KafkaSettings(group_prefix="north")
    renewed = list[tuple[str, Mapping[TopicPartition, str]]]()

    def note(
        kafka: KafkaSettings, group: str, offsets: Mapping[TopicPartition, int], metadata: Mapping[TopicPartition, str]
    ) -> None:
        renewed.append((group, metadata))

    monkeypatch.setattr(topic_owner, "RENEW_S", 0.01)
    monkeypatch.setattr(topic_owner, "fetch_owner", lambda kafka, topic: "north")
    monkeypatch.setattr(topic_owner, "commit_offsets", note)
    ownership = TopicOwnership(kafka=kafka, topics=["shop.scored"])
    # when
    ownership.claim()
    try:
        wait_until(lambda: len(renewed) > 1)
    finally:
        ownership.close()
    # then
    assert renewed[0] == ("shop.scored.owner", {TopicPartition("shop.scored", 0): "north"})
