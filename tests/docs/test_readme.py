"""The code and commands on README.md work; commands on all pages parse."""

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
from contract.events.model import Order
from contract.events.reading import decode
from contract.messages import Decision, Recommendations, RecommendedItem, ScoredRow
from contract.settings.servers import TopicSettings
from contract.settings.worker import ListSettings
from devservers.embedded import EmbeddedKafka
from tests.docs.pages import PAGES, README
from tests.worker.answers import make_answer
from worker.records.answers import DECISION, LIST, Answer
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache
from worker.state.claim_store import ClaimStore

REDIS: Final = "redis://localhost:6379/0"
KAFKA: Final = "localhost:29092"
COMMAND: Final = re.compile(r"python -m ((?:worker|training|export|demo) [^`'&\n#]+)")
COMMANDS: Final = sorted({command.strip() for page in PAGES for command in COMMAND.findall(page.text)})


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=5)
    yield client
    client.close()


def run_code_block(info: str, addresses: dict[str, str], variables: dict[str, Any]) -> dict[str, Any]:
    """The variables after running a block of Python with other addresses."""
    code = README.code_block(info)
    for documented, real in addresses.items():
        code = code.replace(documented, real)
    exec(code, variables)
    return variables


def test_the_example_reads_a_users_list(client: RedisClient, redis_url: str) -> None:
    # given a user with a list, and one without
    item = RecommendedItem(item_id="mug-blue", score=1.0, probability={}, why="popular")
    recommendations = Recommendations(
        user_id="u-17", recommendation_id="r-1", items=(item,), model_version="", computed_ms=0, source_ms=0
    )
    AnswerCache(client=client, prefix="shop:", lists=ListSettings()).write([make_answer(LIST, recommendations)])

    # when the page's code is run
    actual = {
        user: run_code_block("python list", {REDIS: redis_url}, {"redis": redis, "json": json, "user_id": user})
        for user in ("u-17", "u-18")
    }

    # then the list is read
    assert actual["u-17"]["items"] == ["mug-blue"]
    assert actual["u-18"]["items"] == []
    for names in actual.values():
        names["shop"].close()


def test_the_example_sends_an_order_that_decodes(embedded_kafka: EmbeddedKafka, topic_prefix: str) -> None:
    # given a topic of this test's own
    topic = f"{topic_prefix}orders"
    embedded_kafka.create_topics({topic: 4})

    # when the page's code is run
    addresses = {KAFKA: embedded_kafka.bootstrap, TopicSettings().orders: topic}
    names = run_code_block("python order", addresses, {"time": time, "json": json, "Producer": Producer})

    # then an order is on the topic
    event = decode("orders", read_first_record(embedded_kafka, topic))
    assert isinstance(event, Order)
    assert event.event_id == names["order"]["event_id"]


def read_first_record(kafka: EmbeddedKafka, topic: str) -> bytes:
    """The value of the first record of a topic; fails if there is none within 30 s."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"})
    try:
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
        (message,) = consumer.consume(1, 30)
        return bytes(message.value() or b"")
    finally:
        consumer.close()


def test_the_example_reads_a_decision(client: RedisClient, redis_url: str) -> None:
    # given no decision, and then one
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
    ClaimStore(client=client, prefix="shop:", ttl_s=60).claim([Answer(DECISION, row, decision)])

    # when the page's code is run
    after = run_code_block("python decision", {}, {"json": json, "shop": shop})

    # then a missing decision means review, and the other is read as written
    assert before["action"] == "review"
    assert (after["action"], after["reasons"]) == ("decline", ["the card is known for fraud"])
    shop.close()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_a_page_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [module, *words])
    main = import_module(f"{module}.__main__")

    assert main.parse() if module == "worker" else main.parse_arguments(words)


@pytest.mark.parametrize("words", re.findall(r'make bench ARGS="([^"]+)"', README.text))
def test_every_bench_on_the_readme_parses(words: str) -> None:
    name, *rest = shlex.split(words)
    parse: Callable[[Sequence[str]], Any] = BENCHES[name].load().parse

    assert name in BENCHES
    assert parse(rest)
