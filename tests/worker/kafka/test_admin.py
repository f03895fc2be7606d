"""Every request of the admin client goes to a new client once one was not answered."""

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings, TopicSettings
from transport import admin_connection
from transport.admin_connection import FormerClients
from worker.kafka.admin import KafkaAdmin

QUERIES: dict[str, Callable[[KafkaAdmin], object]] = {
    "topic ids": lambda admin: admin.fetch_topic_ids(["orders"]),
    "partitions": lambda admin: admin.list_partitions(["orders"]),
    "brokers": lambda admin: admin.count_brokers(),
    "topics": lambda admin: admin.describe_topics(["orders"]),
    "record limits": lambda admin: admin.fetch_record_limits(["orders"]),
    "creation": lambda admin: admin.create_topics(TopicSettings()),
}


class StuckOnceClient:
    """The first client of a test times out without end, as after the loss of its brokers; later ones answer."""

    count = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).count += 1
        self.is_stuck = self.count == 1

    def poll(self, timeout: float) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        def request(*arguments: Any, **_: Any) -> Any:
            if name == "list_topics":
                return self.answer(SimpleNamespace(topics={}, brokers={1: "a"})).result()
            answers = {
                "describe_topics": SimpleNamespace(topic_id="id", partitions=[]),
            }
            subject = arguments[0][0] if name == "describe_configs" else "orders"
            return {subject: self.answer(answers.get(name, {}))}

        return request

    def answer(self, result: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        if self.is_stuck:
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        else:
            future.set_result(result)
        return future


@pytest.fixture
def kafka_admin(monkeypatch: pytest.MonkeyPatch) -> KafkaAdmin:
    monkeypatch.setattr(StuckOnceClient, "count", 0)
    monkeypatch.setattr(admin_connection, "AdminClient", StuckOnceClient)
    monkeypatch.setattr(admin_connection, "FORMER_CLIENTS", FormerClients())
    return KafkaAdmin(kafka=KafkaSettings())


@pytest.mark.parametrize("query", QUERIES)
def test_after_a_request_timed_out_the_next_one_has_a_new_client(kafka_admin: KafkaAdmin, query: str) -> None:
    # when
    with pytest.raises(Unavailable, match="Kafka should"):
        QUERIES[query](kafka_admin)
    # then
    assert StuckOnceClient.count == 2
    assert kafka_admin.fetch_topic_ids(["orders"]) == {"orders": "id"}


def test_a_request_that_was_sent_is_answered_although_its_client_was_replaced(
    kafka_admin: KafkaAdmin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    sent: Future[Any] = Future()
    monkeypatch.setattr(StuckOnceClient, "describe_topics", lambda *_, **__: {"orders": sent}, raising=False)
    wait = kafka_admin.request_topic_ids(["orders"])
    with pytest.raises(Unavailable):
        kafka_admin.count_brokers()
    # when
    sent.set_result(SimpleNamespace(topic_id="id"))
    # then
    assert wait() == {"orders": "id"}
    assert StuckOnceClient.count == 2


def test_a_request_that_fails_after_its_client_was_replaced_leaves_the_present_one(
    kafka_admin: KafkaAdmin,
) -> None:
    # given
    wait = kafka_admin.request_topic_ids(["orders"])
    with pytest.raises(Unavailable):
        kafka_admin.count_brokers()
    # when
    with pytest.raises(Unavailable):
        wait()
    # then
    assert StuckOnceClient.count == 2
