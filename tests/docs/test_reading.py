"""The code on docs/reading.md reads lists as workers cache them, and sends events that they decode."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from confluent_kafka import Producer

from contract.events.model import Click, Impression
from contract.events.reading import decode
from contract.messages import Recommendations, RecommendedItem
from contract.settings.servers import TopicSettings
from contract.settings.worker import ListSettings
from devservers.embedded import EmbeddedKafka
from tests.docs.pages import READING
from tests.kafka import read_topics
from tests.worker.answers import make_answer
from worker.records import answers
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache

REDIS: Final = "redis://localhost:6379/0"
KAFKA: Final = "localhost:29092"
LIST: Final = Recommendations(
    user_id="u-17",
    recommendation_id="r-1",
    items=(RecommendedItem(item_id="mug-blue", score=1.0, probability={}, why="popular"),),
    model_version="",
    computed_ms=0,
    source_ms=0,
)


@pytest.fixture
def caches(redis_url: str) -> Iterator[AnswerCache]:
    client = RedisClient(url=redis_url, timeout_s=5)
    yield AnswerCache(client=client, prefix="shop:", lists=ListSettings())
    client.close()


def run_page_example(redis_url: str, user: str, category: str) -> tuple[list[str], str | None]:
    """`items` and `recommendation_id` after running the page's Python."""
    variables: dict[str, Any] = {"redis": redis, "json": json, "user_id": user, "category": category}
    exec(READING.code_block("python page").replace(REDIS, redis_url), variables)
    variables["shop"].close()
    return variables["items"], variables["recommendation_id"]


def test_a_page_falls_back_from_list_to_category_to_popular_items(caches: AnswerCache, redis_url: str) -> None:
    assert run_page_example(redis_url, "u-17", "mugs") == ([], None)

    caches.write([make_answer(answers.LIST, LIST)])
    caches.write_popular({"": ["pot-1"], "mugs": ["mug-red"]}, 0)

    assert run_page_example(redis_url, "u-17", "mugs") == (["mug-blue"], "r-1")
    assert run_page_example(redis_url, "u-18", "mugs") == (["mug-red"], None)
    assert run_page_example(redis_url, "u-18", "hats") == (["pot-1"], None)


@pytest.mark.parametrize("recommendation_id", ["r-1", None])
def test_the_python_example_sends_impressions_and_clicks_that_decode(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, recommendation_id: str | None
) -> None:
    # given topics of this test's own
    topics = {kind: topic_prefix + TopicSettings().topic_name(kind) for kind in ("impressions", "clicks")}
    embedded_kafka.create_topics(dict.fromkeys(topics.values(), 4))
    code = READING.code_block("python shown").replace(KAFKA, embedded_kafka.bootstrap)
    for kind, topic in topics.items():
        code = code.replace(f'"{TopicSettings().topic_name(kind)}"', f'"{topic}"')

    # when the page's code is run
    items = [f"i{n}" for n in range(20)]
    names = {"user_id": "u-17", "items": items, "recommendation_id": recommendation_id}
    exec(code, {"json": json, "time": time, "uuid": uuid, "Producer": Producer, **names})

    # then a worker decodes both events
    shown, clicked = (
        decode(kind, read_topics(embedded_kafka.bootstrap, topic)[0].value) for kind, topic in topics.items()
    )
    assert isinstance(shown, Impression)
    assert isinstance(clicked, Click)
    assert (shown.items, shown.recommendation_id) == (tuple(items[:8]), recommendation_id)
    assert (clicked.item_id, clicked.rank, clicked.recommendation_id) == ("i0", 0, recommendation_id)


@pytest.mark.parametrize("language", ["python", "java", "js"])
def test_each_language_uses_the_same_keys_and_fields(language: str) -> None:
    read, shown = (READING.code_block(f"{language} {part}") for part in ("page", "shown"))

    for word in ("shop:rec:", "shop:rec:popular:", "shop:rec:popular", "items", "item_id", "recommendation_id"):
        assert word in read
    for word in ("shop.impressions", "event_id", "ts_ms", "user_id", "items", "recommendation_id", "surface"):
        assert word in shown
