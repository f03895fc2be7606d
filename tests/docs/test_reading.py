"""What docs/reading.md tells a shop to do reads what workers cache and sends what they understand."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from confluent_kafka import Producer

from contract.events import Click, Impression, decode
from contract.messages import Recommendations, RecommendedItem
from contract.settings import ListSettings, TopicSettings
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
    """What the page's Python leaves in `items` and `recommendation_id`."""
    given: dict[str, Any] = {"redis": redis, "json": json, "user_id": user, "category": category}
    exec(READING.code_block("python page").replace(REDIS, redis_url), given)
    given["shop"].close()
    return given["items"], given["recommendation_id"]


def test_a_page_is_the_users_list_or_what_is_popular_there_or_anywhere(caches: AnswerCache, redis_url: str) -> None:
    assert run_page_example(redis_url, "u-17", "mugs") == ([], None)

    caches.write([make_answer(answers.LIST, LIST)])
    caches.write_popular({"": ["pot-1"], "mugs": ["mug-red"]}, 0)

    assert run_page_example(redis_url, "u-17", "mugs") == (["mug-blue"], "r-1")
    assert run_page_example(redis_url, "u-18", "mugs") == (["mug-red"], None)
    assert run_page_example(redis_url, "u-18", "hats") == (["pot-1"], None)


@pytest.mark.parametrize("recommendation_id", ["r-1", None])
def test_what_was_shown_and_clicked_is_said_in_events_that_are_none_of_the_malformed(
    embedded_kafka: EmbeddedKafka, topic_prefix: str, recommendation_id: str | None
) -> None:
    # Given topics of this test's own
    topics = {kind: topic_prefix + TopicSettings().topic_name(kind) for kind in ("impressions", "clicks")}
    embedded_kafka.create_topics(dict.fromkeys(topics.values(), 4))
    code = READING.code_block("python shown").replace(KAFKA, embedded_kafka.bootstrap)
    for kind, topic in topics.items():
        code = code.replace(f'"{TopicSettings().topic_name(kind)}"', f'"{topic}"')

    # When the page's lines are run
    items = [f"i{n}" for n in range(20)]
    names = {"user_id": "u-17", "items": items, "recommendation_id": recommendation_id}
    exec(code, {"json": json, "time": time, "uuid": uuid, "Producer": Producer, **names})

    # Then both are what a worker reads
    shown, clicked = (
        decode(kind, read_topics(embedded_kafka.bootstrap, topic)[0].value) for kind, topic in topics.items()
    )
    assert isinstance(shown, Impression)
    assert isinstance(clicked, Click)
    assert (shown.items, shown.recommendation_id) == (tuple(items[:8]), recommendation_id)
    assert (clicked.item_id, clicked.rank, clicked.recommendation_id) == ("i0", 0, recommendation_id)


@pytest.mark.parametrize("language", ["python", "java", "js"])
def test_each_language_reads_the_same_keys_and_fields_and_says_the_same(language: str) -> None:
    read, shown = (READING.code_block(f"{language} {what}") for what in ("page", "shown"))

    for word in ("shop:rec:", "shop:rec:popular:", "shop:rec:popular", "items", "item_id", "recommendation_id"):
        assert word in read
    for word in ("shop.impressions", "event_id", "ts_ms", "user_id", "items", "recommendation_id", "surface"):
        assert word in shown
