"""Faults of Kafka: the broker killed, stopped, paused; partitions, topics and their settings; foreign transactions."""

import time
from typing import Any, Final

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from devservers.apache_kafka import make_admin_client
from devservers.process import is_port_open
from testkit.chaos.scene import Course, Scene, wait_for

DOWN_S: Final = (0.0, 6.0)
PAUSED_S: Final = (2.0, 10.0)
START_S: Final = 60.0
OPEN_S: Final = (4.0, 12.0)
REQUEST_S: Final = 20.0
PARTITIONS_MAX: Final = 8
GROWING: Final = ("reviews", "searches", "erasures", "products")  # nothing joins these by partition
RECREATED: Final = ("reviews", "searches", "impressions")  # their events get no decision, so nothing is owed for them
FOREIGN_TIMEOUT_MS: Final = 60_000
FOREIGN_RECORDS: Final = 3


def kill_broker(scene: Scene) -> Course:
    scene.record("broker killed")
    scene.kafka.process.kill()
    yield from restart_broker(scene)


def stop_broker(scene: Scene) -> Course:
    scene.record("broker stopped")
    scene.kafka.stop()
    yield from restart_broker(scene)


def restart_broker(scene: Scene) -> Course:
    try:
        yield scene.rng.uniform(*DOWN_S)
    finally:
        scene.kafka.process.start()
    yield from wait_for(lambda: is_port_open(scene.kafka.port), within_s=START_S, step_s=0.2)


def pause_broker(scene: Scene) -> Course:
    scene.record("broker paused")
    scene.kafka.pause()
    try:
        yield scene.rng.uniform(*PAUSED_S)
    finally:
        scene.kafka.resume()
    yield from wait_for(scene.kafka.is_ready, within_s=START_S, step_s=0.2)


def add_partitions(scene: Scene) -> Course:
    topic = scene.topic(scene.rng.choice(GROWING))
    count = len(make_admin_client(scene.kafka.bootstrap).list_topics(topic, timeout=REQUEST_S).topics[topic].partitions)
    if count < PARTITIONS_MAX:
        scene.administer(lambda admin: admin.create_partitions([NewPartitions(topic, count + 1)]))
        scene.record("partitions added")
    yield 0


def recreate_topic(scene: Scene) -> Course:
    """Begins where everything sent is folded: what a deleted topic still had unread is gone with it."""
    topic = scene.topic(scene.rng.choice(RECREATED))
    scene.record("topic recreated")
    scene.has_recreated_topics = True
    delete_topic(scene, topic)
    scene.kafka.create_topics({topic: scene.environment.topics.partitions}, {"retention.ms": "-1"})
    scene.recreated_topics.append(topic)
    yield 0


def lose_dead_letter_topic(scene: Scene) -> Course:
    """The dead-letter topic is missing for a while; its earlier records are gone."""
    topic = scene.topic("dead_letters")
    scene.record("dead-letter topic missing")
    try:
        delete_topic(scene, topic)
        yield scene.rng.uniform(4, 12)
    finally:
        scene.kafka.create_topics({topic: scene.environment.topics.partitions}, {"retention.ms": "-1"})
        scene.recreated_topics.append(topic)


def delete_topic(scene: Scene, topic: str) -> None:
    """Delete a topic and wait until it is gone."""
    admin = make_admin_client(scene.kafka.bootstrap)
    admin.delete_topics([topic], operation_timeout=REQUEST_S)[topic].result(REQUEST_S)
    while topic in admin.list_topics(timeout=REQUEST_S).topics:
        time.sleep(0.02)


def shrink_dead_letter_topic(scene: Scene) -> Course:
    """The dead-letter topic takes no record above 2 kB for a while, while poison of 300 kB comes."""
    topic = scene.topic("dead_letters")
    scene.record("dead-letter topic too small")
    set_topic_option(scene, topic, "max.message.bytes", "2000")
    try:
        for _ in range(3):
            send_poison(scene)
            yield scene.rng.uniform(1, 4)
    finally:
        set_topic_option(scene, topic, "max.message.bytes", "1048588")


def require_replicas(scene: Scene) -> Course:
    """A topic that the workers write asks for a replica more than there is."""
    topic = scene.topic(scene.rng.choice(("decisions", "scored", "feedback")))
    scene.record("too few replicas")
    set_topic_option(scene, topic, "min.insync.replicas", "2")
    try:
        yield scene.rng.uniform(2, 8)
    finally:
        set_topic_option(scene, topic, "min.insync.replicas", "1")


def set_topic_option(scene: Scene, topic: str, name: str, value: str) -> None:
    entry: Any = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])

    def request(admin: AdminClient) -> Any:
        return admin.incremental_alter_configs([resource])

    scene.administer(request)


def open_foreign_transaction(scene: Scene) -> Course:
    """Another producer leaves a transaction open on an input topic, then aborts or commits it."""
    kind = scene.rng.choice(("orders", "clicks", "labels"))
    lane = "browsing" if kind == "clicks" else "orders"
    settings: dict[str, Any] = {
        "bootstrap.servers": scene.kafka.bootstrap,
        "transactional.id": f"foreign-{scene.rng.random()}",
        "transaction.timeout.ms": FOREIGN_TIMEOUT_MS,
        "log_level": 0,
    }
    producer = Producer(settings)
    try:
        producer.init_transactions(REQUEST_S)
        producer.begin_transaction()
        for number in range(FOREIGN_RECORDS):
            producer.produce(scene.topic(kind), b"never committed", f"foreign-{number}")
        producer.flush(REQUEST_S)
    except KafkaException:
        return  # another fault has the broker
    scene.record("foreign transaction open")
    try:
        yield scene.rng.uniform(*OPEN_S)
    finally:
        try:
            producer.abort_transaction(REQUEST_S)
        except KafkaException:  # past its time-out: the coordinator aborts it
            scene.report("the foreign transaction could not be aborted by its producer")
        scene.traffic.producers[lane].send(1)


def send_poison(scene: Scene) -> None:
    """Bad records of every kind in one burst."""
    for lane, producer in scene.traffic.producers.items():
        kind = "orders" if lane == "orders" else "clicks"
        records = [producer.traffic.create_bad_record(kind) for _ in range(scene.rng.randint(5, 25))]
        scene.traffic.send_records(lane, records)
