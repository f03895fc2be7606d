"""A producer whose client is left without a broker goes on with a new one, and publishes each batch once."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from contract.settings.servers import KafkaSettings
from devservers.apache_kafka import ApacheKafka
from tests.kafka import read_topics
from tests.worker.environment import WorkerEnvironment
from tests.worker.kafka.kafka_proxy import (
    ADD_OFFSETS_TO_TXN,
    END_TXN,
    INIT_PRODUCER_ID,
    PRODUCE,
    TXN_OFFSET_COMMIT,
    Cut,
    KafkaProxy,
)
from tests.worker.worker_lifecycle import InProcessWorker
from transport.records import TopicPartition
from worker.group.consumer import GroupConsumer
from worker.kafka import producer as producer_module
from worker.kafka import producer_clients
from worker.kafka.outgoing import OutgoingRecord
from worker.kafka.producer import OutcomeUnknown, TransactionalProducer
from worker.ops.retry import Retry
from worker.ops.steps import StepMarker

TIMEOUT_S = 60.0
OpenProxy = Callable[[Cut], KafkaProxy]
CUTS = {
    "the first transactional id": Cut(INIT_PRODUCER_ID),
    "the second transactional id": Cut(INIT_PRODUCER_ID, occurrence=2),
    "produce": Cut(PRODUCE, occurrence=2),
    "an answer to produce": Cut(PRODUCE, is_answered=True, occurrence=2),
    "adding offsets": Cut(ADD_OFFSETS_TO_TXN, occurrence=2),
    "sending offsets": Cut(TXN_OFFSET_COMMIT, occurrence=2),
    "commit": Cut(END_TXN, occurrence=2),
    "an answer to commit": Cut(END_TXN, is_answered=True, occurrence=2),
}


@pytest.fixture
def open_proxy(apache_kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenProxy]:
    """Opens a way to the broker for all producers that are created before it is cut; later ones need none."""
    proxies: list[KafkaProxy] = []

    def create(options: dict[str, Any], **other: Any) -> Producer:
        is_cut = all(proxy.is_cut for proxy in proxies)
        return Producer(options if is_cut else {**options, "bootstrap.servers": proxies[0].bootstrap}, **other)

    def open_one(cut: Cut) -> KafkaProxy:
        proxies.append(KafkaProxy(apache_kafka.port, cut))
        return proxies[0]

    monkeypatch.setattr(producer_clients, "Producer", create)
    monkeypatch.setattr(producer_clients, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(producer_clients, "STUCK_S", 2.0)
    monkeypatch.setattr(producer_module, "ABANDON_S", 3.0)
    yield open_one
    for proxy in proxies:
        proxy.close()


class Publisher:
    """A producer with a consumer that has a group, and one record for each batch. Ends by itself after a minute."""

    def __init__(self, kafka: ApacheKafka, prefix: str, *, is_transactional: bool = True) -> None:
        self.settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, group_prefix=prefix)
        self.topic, self.partition = f"{prefix}out", TopicPartition(f"{prefix}in", 0)
        kafka.create_topics({self.topic: 1, self.partition.topic: 1})
        self.consumer = GroupConsumer(kafka=self.settings, group=prefix, instance="0")
        stop = threading.Event()
        self._timer = threading.Timer(TIMEOUT_S, stop.set)
        self._timer.start()
        self.producer = TransactionalProducer(
            kafka=self.settings,
            transactional_id=prefix if is_transactional else None,
            retry=Retry(stop, wait_max_s=0.1),
            step_marker=StepMarker(),
        )

    def publish(self, number: int, *, has_position: bool = True) -> None:
        record = OutgoingRecord(self.topic, "k", b"%d" % number)
        self.producer.send([record])
        self.producer.publish([record], {self.partition: number} if has_position else {}, self.consumer)

    def read_values(self) -> list[bytes | None]:
        return [record.value for record in read_topics(self.settings.bootstrap_servers, self.topic)]

    def read_committed(self) -> int | None:
        return self.consumer.query_offsets([self.partition])[self.partition].committed

    def __enter__(self) -> "Publisher":
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self.producer.close()
        self.consumer.close()


@pytest.mark.parametrize("cut", CUTS.values(), ids=list(CUTS))
def test_batches_are_published_once_although_the_client_is_left_without_a_broker(
    apache_kafka: ApacheKafka, topic_prefix: str, open_proxy: OpenProxy, cut: Cut
) -> None:
    # given
    proxy = open_proxy(cut)
    with Publisher(apache_kafka, topic_prefix) as publisher:
        # when
        for number in range(1, 5):
            publisher.publish(number)
        # then
        assert proxy.is_cut
        assert publisher.read_values() == [b"1", b"2", b"3", b"4"]
        assert publisher.read_committed() == 4


def test_a_batch_without_transactions_is_sent_again_with_a_new_client(
    apache_kafka: ApacheKafka, topic_prefix: str, open_proxy: OpenProxy
) -> None:
    # given
    proxy = open_proxy(Cut(PRODUCE, occurrence=2))
    with Publisher(apache_kafka, topic_prefix, is_transactional=False) as publisher:
        # when
        for number in range(1, 4):
            publisher.publish(number)
        # then
        assert proxy.is_cut
        assert publisher.read_values() == [b"1", b"2", b"3"]
        assert publisher.read_committed() == 3


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_caller_is_told_where_no_offset_says_whether_its_batch_was_committed(
    apache_kafka: ApacheKafka, topic_prefix: str, open_proxy: OpenProxy, is_committed: bool
) -> None:
    # given
    open_proxy(Cut(END_TXN, is_answered=is_committed, occurrence=2))
    with Publisher(apache_kafka, topic_prefix) as publisher:
        publisher.publish(1)
        # when
        with pytest.raises(OutcomeUnknown):
            publisher.publish(2, has_position=False)
        # then the transaction has ended, and the next one begins
        assert publisher.read_values() == [b"1", b"2"][: 1 + is_committed]
        publisher.publish(3)
        assert publisher.read_values()[-1] == b"3"


@pytest.mark.parametrize("is_committed", [False, True])
def test_orders_are_decided_once_when_the_client_is_lost_in_a_commit(
    apache_stage: WorkerEnvironment, seed: int, open_proxy: OpenProxy, is_committed: bool
) -> None:
    # given
    proxy = open_proxy(Cut(END_TXN, is_answered=is_committed, occurrence=2))
    orders = apache_stage.send_orders(seed, 60)
    # when
    with InProcessWorker(apache_stage) as worker:
        worker.process_all(apache_stage.end_offsets("orders"))
        orders |= apache_stage.send_orders(seed, 60, first=60)
        worker.process_all(apache_stage.end_offsets("orders"))
        orders |= apache_stage.send_orders(seed, 60, first=120)
        worker.process_all(apache_stage.end_offsets("orders"))
    # then
    assert proxy.is_cut
    assert apache_stage.is_decided_once(orders)
    assert apache_stage.find_differences("orders") == []
