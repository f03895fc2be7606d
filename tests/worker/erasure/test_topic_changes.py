"""The erasures topic gets partitions, or is recreated, while a worker runs."""

import pytest
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from contract.events.model import Erasure
from contract.messages import to_json
from devservers.apache_kafka import make_admin_client
from testkit.metrics import read_metric
from tests.kafka import BlockingProducer, recreate_topics
from tests.worker.environment import PARTITIONS, WorkerEnvironment
from tests.worker.erasure.test_executor import (
    count_confirmations,
    find_differences,
    order_ms,
    process_all,
    read_profiles,
    send_orders,
)
from tests.worker.worker_lifecycle import InProcessWorker
from transport.records import TopicPartition
from worker.ops import metrics

pytestmark = pytest.mark.apache_kafka


@pytest.fixture
def environment(apache_stage: WorkerEnvironment) -> WorkerEnvironment:
    """Clients look for changes of topics several times a second."""
    kafka = apache_stage.settings.kafka
    client = {**kafka.client, "topic.metadata.refresh.interval.ms": 200}
    apache_stage.settings = apache_stage.settings.model_copy(
        update={"kafka": kafka.model_copy(update={"client": client})}
    )
    return apache_stage


def send_to(environment: WorkerEnvironment, user: str, partition: int, name: str) -> None:
    erasure = Erasure(event_id=name, ts_ms=order_ms(99), user_id=user)
    with BlockingProducer(environment.broker.bootstrap) as producer:  # knows the partitions that there are now
        producer.send(environment.topics.erasures, [(user, to_json(erasure))], partition=partition)


def recreate_erasures(environment: WorkerEnvironment) -> None:
    recreate_topics(environment.broker, {environment.topics.erasures: PARTITIONS})


def test_an_erasure_in_an_added_partition_is_executed_and_confirmed(environment: WorkerEnvironment) -> None:
    # given a worker that has executed an erasure
    send_orders(environment, range(20))
    environment.send_erasure("u2", order_ms(99), "g2")
    topic = environment.topics.erasures
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        # when a partition is added, and gets an erasure
        admin = make_admin_client(environment.broker.bootstrap)
        for future in admin.create_partitions([NewPartitions(topic, 8)], operation_timeout=30).values():
            future.result()
        worker.runs_periodic = False
        send_to(environment, "u1", 6, "g1")
        worker.run_until(lambda: "user:u1" not in read_profiles(environment))
        worker.run_until(lambda: TopicPartition(topic, 6) in worker.offsets.committed)
        assert worker.erasure_service is not None
        # then it is pending, then confirmed
        worker.erasure_service.confirmer.find_confirmable()
        assert read_metric(metrics.ERASURES_PENDING) == 1
        worker.runs_periodic = True
        worker.run_until(lambda: count_confirmations(environment) == {"g1": 1, "g2": 1})
        process_all(worker, environment)
        assert find_differences(environment) == []


def test_a_recreated_erasures_topic_is_read_from_its_beginning(
    environment: WorkerEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    # given a worker that has confirmed erasures
    send_orders(environment, range(20))
    for n, user in enumerate(("u1", "u2", "u2")):
        send_to(environment, user, 0, f"g{n}")
    with InProcessWorker(environment, erases=True) as worker:
        process_all(worker, environment)
        # when the topic is recreated, and has less than before
        recreate_erasures(environment)
        send_to(environment, "u3", 0, "new")
        # then the new erasure is executed and confirmed
        worker.run_until(lambda: count_confirmations(environment)["new"] == 1)
        process_all(worker, environment)
        assert not {"user:u1", "user:u2", "user:u3"} & read_profiles(environment).keys()
        assert count_confirmations(environment) == {"g0": 1, "g1": 1, "g2": 1, "new": 1}
        warnings = [message for message in caplog.messages if "was deleted and recreated" in message]
        assert len(warnings) == 1
        assert environment.topics.erasures in warnings[0]
        assert not [message for message in caplog.messages if "lost records" in message]
        # and so are later ones
        send_to(environment, "u4", 0, "later")
        worker.run_until(lambda: count_confirmations(environment)["later"] == 1)
