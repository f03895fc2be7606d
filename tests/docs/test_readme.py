"""What README.md tells a newcomer to type does what it says."""

import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, Final

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.__main__ import BENCHES
from contract.events import Order, decode
from contract.messages import Decision, Recommendations, RecommendedItem, ScoredRow
from contract.settings import ListSettings, TopicSettings
from devservers.embedded import EmbeddedKafka
from tests.docs.pages import PAGES, README
from tests.worker.answers import make_answer
from worker.records.answers import DECISION, LIST, Answer
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore

REDIS: Final = "redis://localhost:6379/0"
KAFKA: Final = "localhost:29092"
COMMAND: Final = re.compile(r"python -m ((?:worker|training|export|demo) [^`'&\n#]+)")


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=5)
    yield client
    client.close()


def run_code_block(info: str, addresses: dict[str, str], variables: dict[str, Any]) -> dict[str, Any]:
    """The names that a block of Python leaves behind, its addresses replaced."""
    code = README.code_block(info)
    for told, real in addresses.items():
        code = code.replace(told, real)
    exec(code, variables)
    return variables


def test_a_list_is_read_as_the_page_says(client: RedisClient, redis_url: str) -> None:
    # Given a user with a list, and one without
    item = RecommendedItem(item_id="mug-blue", score=1.0, probability={}, why="popular")
    made = Recommendations(
        user_id="u-17", recommendation_id="r-1", items=(item,), model_version="", computed_ms=0, source_ms=0
    )
    AnswerCache(client=client, prefix="shop:", lists=ListSettings()).write([make_answer(LIST, made)])

    # When the page's lines are run
    actual = {
        user: run_code_block("python list", {REDIS: redis_url}, {"redis": redis, "json": json, "user_id": user})
        for user in ("u-17", "u-18")
    }

    # Then they read it
    assert actual["u-17"]["items"] == ["mug-blue"]
    assert actual["u-18"]["items"] == []
    for names in actual.values():
        names["shop"].close()


def test_the_order_of_the_page_is_one(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
    # Given a topic of this test's own
    topic = f"{topic_prefix}orders"
    embedded_kafka.create_topics({topic: 4})

    # When the page's lines are run
    addresses = {KAFKA: embedded_kafka.bootstrap, TopicSettings().orders: topic}
    names = run_code_block("python order", addresses, {"time": time, "json": json, "Producer": Producer})

    # Then an order is on it
    event = decode("orders", read_first_record(embedded_kafka, topic))
    assert isinstance(event, Order)
    assert event.event_id == names["order"]["event_id"]


def read_first_record(kafka: EmbeddedKafka, topic: str) -> bytes:
    """The value of some record of a topic; fails if there is none within 30 s."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
        (message,) = consumer.consume(1, 30)
        return bytes(message.value() or b"")
    finally:
        consumer.close()


def test_a_decision_is_read_as_the_page_says(client: RedisClient, redis_url: str) -> None:
    # Given no decision, and then one
    shop = redis.Redis.from_url(redis_url)
    before = run_code_block("python decision", {}, {"json": json, "shop": shop})
    decision = Decision(
        event_id="o-1",
        user_id="u-17",
        ts_ms=0,
        probability={},
        action="decline",
        reasons=("the card is known for fraud",),
        model_version="",
    )
    row = ScoredRow(
        event_id="o-1",
        kind="order",
        user_id="u-17",
        ts_ms=0,
        topic="shop.orders",
        partition=0,
        offset=0,
        model_version="",
        features="",
        groups={},
    )
    DecisionStore(client=client, prefix="shop:", ttl_s=60).claim([Answer(DECISION, row, decision)])

    # When the page's lines are run
    after = run_code_block("python decision", {}, {"json": json, "shop": shop})

    # Then a missing one is reviewed, and the other is as it was made
    assert before["action"] == "review"
    assert (after["action"], after["reasons"]) == ("decline", ["the card is known for fraud"])
    shop.close()


@pytest.mark.parametrize("command", sorted({found.strip() for page in PAGES for found in COMMAND.findall(page.text)}))
def test_every_command_that_a_page_names_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [module, *words])
    parse: Callable[..., Any] = import_module(f"{module}.__main__").parse

    assert parse() if module == "worker" else parse(words)


@pytest.mark.parametrize("words", re.findall(r'make bench ARGS="([^"]+)"', README.text))
def test_every_bench_that_the_page_names_is_understood(words: str) -> None:
    name, *rest = shlex.split(words)
    parse: Callable[[Sequence[str]], Any] = BENCHES[name].load().parse

    assert name in BENCHES
    assert parse(rest)
