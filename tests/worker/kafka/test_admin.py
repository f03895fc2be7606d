"""The admin client recovers from requests that time out."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from transport import admin_connection
from transport.records import TopicPartition
from worker.kafka.admin import KafkaAdmin


class StuckOnceClient:
    """The first client of a test times out without end, as after the loss of a coordinator; later ones answer."""

    count = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).count += 1
        self.is_stuck = self.count == 1

    def poll(self, timeout: float) -> int:
        return 0

    def list_consumer_group_offsets(
        self, requests: Sequence[ConsumerGroupTopicPartitions], request_timeout: float
    ) -> dict[str, "Future[Any]"]:
        future: Future[Any] = Future()
        if self.is_stuck:
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        else:
            future.set_result(ConsumerGroupTopicPartitions("g", [KafkaPartition("orders", 0, 7)]))
        return {"g": future}


def test_after_a_request_timed_out_the_next_one_has_a_new_client(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(StuckOnceClient, "count", 0)
    monkeypatch.setattr(admin_connection, "AdminClient", StuckOnceClient)
    kafka_admin, partition = KafkaAdmin(kafka=KafkaSettings()), TopicPartition("orders", 0)
    # when
    with pytest.raises(Unavailable, match="committed offsets"):
        kafka_admin.fetch_committed("orders", [partition])
    # then
    assert kafka_admin.fetch_committed("orders", [partition]) == {partition: 7}
