"""An experiment's lists, examples, orders and items, read from the topics as worker, joiner and shop write them."""

import pytest
from confluent_kafka import Producer

from contract.events.model import Erasure
from contract.messages import Example, ScoredRow, to_json, to_msgpack
from contract.settings.reading import Settings
from contract.settings.servers import TopicSettings
from contract.units import DAY_MS
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from tests.kafka import make_settings
from tests.training.experiments.test_comparison import FIRST_MS, NAME, make_order
from tests.worker.events import make_product
from training.experiments.outcomes import sum_by_user
from training.experiments.reading import count_items, read_experiment

KINDS = ("scored", "feedback", "orders", "products", "erasures")
USERS = ("u0", "u1", "u2")


@pytest.fixture
def settings(broker: EmbeddedKafka | ApacheKafka, topic_prefix: str) -> Settings:
    """The settings of a broker with empty topics."""
    topics = TopicSettings(prefix=topic_prefix)
    broker.create_topics({topics.topic_name(kind): 4 for kind in KINDS})
    kafka = make_settings(broker)
    return Settings().model_copy(update={"kafka": kafka, "topics": topics})


def make_row(user: str, arm: str) -> ScoredRow:
    return ScoredRow(
        event_id=f"r-{user}",
        kind="recommendation",
        user_id=user,
        ts_ms=FIRST_MS,
        topic="t",
        partition=0,
        offset=0,
        model_version="",
        features="f",
        groups={},
        items=("a", "b"),
        experiments={NAME: arm},
    )


def make_click(user: str) -> Example:
    return Example(
        example_id=f"r-{user}~a",
        revision=1,
        event_id=f"r-{user}",
        user_id=user,
        ts_ms=FIRST_MS,
        model_version="",
        features="f",
        groups={},
        labels={"click": 1.0},
        known_ms={"click": FIRST_MS + 1},
        experiments={NAME: "control"},
    )


def fill(settings: Settings) -> None:
    """Three users with lists, a click and an order each; the last one is erased. Two products."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})

    def produce(kind: str, value: bytes) -> None:
        producer.produce(settings.topics.topic_name(kind), value, timestamp=FIRST_MS + DAY_MS)

    for number, user in enumerate(USERS):
        produce("scored", to_msgpack(make_row(user, "variant" if number else "control")))
        produce("feedback", to_msgpack(make_click(user)))
        produce("orders", to_json(make_order(user, 10.0 + number)))
    produce("orders", b"no order")
    for item in ("a", "b", "a"):
        produce("products", to_json(make_product(item)))
    produce("erasures", to_json(Erasure(event_id="x", user_id="u2", ts_ms=FIRST_MS + DAY_MS)))
    assert producer.flush(30) == 0


def test_an_experiment_is_read_from_the_topics_without_erased_people(settings: Settings) -> None:
    fill(settings)

    store = read_experiment(settings, NAME)

    assert {arm: store.find_users(arm) for arm in ("control", "variant")} == {"control": ["u0"], "variant": ["u1"]}
    assert sum_by_user(store.list_events("clicks"), ["u0", "u1"]).tolist() == [1, 1]
    assert sum_by_user(store.list_events("revenue"), ["u0", "u1"]).tolist() == [10, 11]
    assert len(store.list_events("revenue")) == 2
    assert (store.unreadable, count_items(settings)) == (0, 2)
