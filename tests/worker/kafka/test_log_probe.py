"""A probe whose clients have lost their brokers answers with new ones."""

from collections.abc import Callable
from contextlib import closing

import pytest

from contract.errors import Unavailable
from tests.conftest import KafkaBroker
from tests.transport.test_lost_brokers import lose_admin_brokers, lose_brokers, make_settings, send
from transport.records import TopicPartition
from worker.kafka import log_probe
from worker.kafka.log_probe import LogProbe

QUERIES: dict[str, Callable[[LogProbe, str], object]] = {
    "partitions": lambda probe, topic: probe.count_partitions([topic]),
    "ends": lambda probe, topic: probe.fetch_ends([TopicPartition(topic, 0)]),
    "group": lambda probe, _: probe.fetch_assigned("a-group"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_probe_that_lost_its_brokers_answers_with_new_clients(
    broker: KafkaBroker, topic: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    # given
    send(broker, topic, b"a")
    monkeypatch.setattr(log_probe, "TIMEOUT_S", 0.5)
    with closing(LogProbe(kafka=make_settings(broker))) as probe:
        lose_admin_brokers(probe._admin)
        lose_brokers(probe._consumer)
        # when
        with pytest.raises(Unavailable):
            QUERIES[query](probe, topic)
        monkeypatch.undo()
        # then
        QUERIES[query](probe, topic)
