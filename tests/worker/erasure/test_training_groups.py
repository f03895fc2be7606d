"""An erasure is confirmed only once the learner and the monitor, if they ever ran, have executed it too."""

from collections.abc import Iterator
from contextlib import closing
from typing import Final

import pytest

from devservers.apache_kafka import ApacheKafka
from testkit.metrics import read_metric
from tests.worker.environment import WorkerEnvironment
from tests.worker.erasure.test_executor import count_confirmations, order_ms, send_orders
from tests.worker.worker_lifecycle import InProcessWorker
from transport.group_offsets import commit_offsets
from transport.records import TopicPartition
from worker.ops import metrics

PARTITIONS: Final = 4


@pytest.fixture
def environment(apache_kafka: ApacheKafka, redis_url: str, topic_prefix: str) -> Iterator[WorkerEnvironment]:
    with closing(WorkerEnvironment(broker=apache_kafka, redis_url=redis_url, prefix=topic_prefix)) as environment:
        yield environment


def commit_progress(environment: WorkerEnvironment, process: str, offset: int) -> None:
    """The process has executed this many erasures of each partition."""
    kafka, topic = environment.settings.kafka, environment.topics.erasures
    commit_offsets(kafka, kafka.group(process), {TopicPartition(topic, n): offset for n in range(PARTITIONS)})


@pytest.mark.apache_kafka
@pytest.mark.parametrize("process", ["learner", "monitor"])
def test_a_confirmation_waits_for_a_group_that_has_committed(environment: WorkerEnvironment, process: str) -> None:
    # given a process that started before the erasure
    send_orders(environment, range(5))
    commit_progress(environment, process, 0)
    environment.send_erasure("u1", order_ms(99), "g1")
    with InProcessWorker(environment, erases=True) as worker:
        # when everybody else is done
        worker.run_until(lambda: read_metric(metrics.ERASURES_WAITING, process) == 1)
        worker.run_until(lambda: read_metric(metrics.ERASURES_WAITING, "orders") == 0)
        # then it is not confirmed
        assert not count_confirmations(environment)
        # until the process has committed
        commit_progress(environment, process, 1)
        worker.run_until(lambda: count_confirmations(environment) == {"g1": 1})
