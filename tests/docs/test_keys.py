"""docs/keys.md has every key that workers write, with its type and time to live, and the layout of what is binary."""

import re
from typing import Final

import numpy as np
import pytest
import redis

from bench.performance.memory import ENTITY_BYTES, OFF_MAX, SLICE_BYTES
from contract.events import Search
from contract.messages import Decision, Ranking, Recommendations, RecommendedItem, ScoredRow, read_recommendations
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import FAMILIES, HORIZON_MS, LAYOUT, RECORD, WINDOWS
from contract.profiles.store import fold
from contract.settings import ListSettings, RedisSettings
from tests.docs.pages import KEYS, Row, strip_code_marks
from tests.worker.answers import make_answer
from transport.records import TopicPartition
from worker.erasure.progress import ErasureProgress, owner_field
from worker.records.answers import DECISION, LIST, RANKING, Answer
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache
from worker.state.decision_store import DecisionStore
from worker.state.generations import Generations, generation_prefix
from worker.state.profile_store import TTL_MS, RedisProfileStore

SECONDS: Final = {"days": 86_400, "hours": 3_600, "hour": 3_600, "minutes": 60}
SLACK_S: Final = 60
UNITS: Final = {"u": "uint", "i": "int"}


def read_key_table() -> list[Row]:
    return KEYS.tables("What is in Redis")[0]


def key_pattern(key: str) -> str:
    """A key of the table as a pattern; in binary keys the braces around the bucket are the key's own."""
    own_braces = key.replace("{bucket}", r"\{[0-9]+\}") if ":profile:" in key or ":merged:" in key else key
    return re.sub(r"\{\w+\}", "[^:]+", own_braces.replace("{kind}:{id}", "[a-z]+:[^:{}]+"))


def find_row(key: str) -> Row:
    """The row that describes a key; the one with the fewest blanks, if several might."""
    matching = [row for row in read_key_table() if re.fullmatch(key_pattern(strip_code_marks(row["key"])), key)]
    assert matching, f"{key} should be described. Found no row for it."
    return min(matching, key=lambda row: row["key"].count("{"))


def parse_ttl_s(words: str) -> int:
    """A time to live in words; -1, as Redis has it, for none."""
    if words == "none":
        return -1
    number, unit = re.match(r"(\d+) (\w+)", words).groups()  # type: ignore[union-attr]
    return int(number) * SECONDS[unit]


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    """A Redis into which every writer of the worker has written."""
    prefix, client = RedisSettings().prefix, RedisClient(url=redis_url, timeout_s=5)
    lists = ListSettings()
    write_claims(DecisionStore(client=client, prefix=prefix, ttl_s=lists.decision_ttl_s))
    write_caches(AnswerCache(client=client, prefix=prefix, lists=lists))
    search = Search(event_id="s-1", ts_ms=0, user_id="u-17", query="mug")
    memory = fold([{}], to_updates([Arrival("searches/0", 0, search)]))
    RedisProfileStore(client=client, prefix=prefix).merge(
        memory.slice_writes(), {}, {bucket: {"searches/0": 1} for bucket in range(64)}
    )
    marks = ErasureProgress(profiles=RedisProfileStore(client=client, prefix=prefix))
    marks.write([owner_field("orders", TopicPartition("shop.orders", 0))], {"erasures/0": 1})
    generations = Generations(client=client, prefix=prefix)
    generations.open()
    RedisProfileStore(client=client, prefix=generation_prefix(prefix, str(generations.begin_build()))).write_log_starts(
        {"searches/0": 1}
    )
    client.close()
    return redis.Redis.from_url(redis_url, decode_responses=True)


def write_claims(claims: DecisionStore) -> None:
    decision = Decision(
        event_id="o-1", user_id="u-17", ts_ms=0, probability={}, action="approve", reasons=(), model_version=""
    )
    scored = ScoredRow(
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
    claims.claim([Answer(DECISION, scored, decision)])


def write_caches(caches: AnswerCache) -> None:
    item = RecommendedItem(item_id="mug-blue", score=1.0, probability={}, why="popular")
    made = Recommendations(
        user_id="u-17", recommendation_id="r-1", items=(item,), model_version="", computed_ms=0, source_ms=0
    )
    ranking = Ranking(event_id="s-1", user_id="u-17", query="mug", items=(), relevance=(), model_version="")
    caches.write([make_answer(LIST, made), make_answer(RANKING, ranking)])
    caches.write_popular({"": ["mug-blue"], "kitchen": ["mug-blue"]}, now_ms=0)


def test_every_key_that_is_written_stands_there_with_its_type_and_time_to_live(server: redis.Redis) -> None:
    # Given all keys that workers write
    keys = list(server.scan_iter("*"))

    # Then each is as its row says
    for key in keys:
        row, ttl_s = find_row(key), int(server.ttl(key))
        told = parse_ttl_s(row["time to live"])
        assert row["type"] == server.type(key), key
        assert told == ttl_s if told < 0 else told - SLACK_S < ttl_s <= told, key

    # And each row describes some key
    assert {find_row(key)["key"] for key in keys} == {row["key"] for row in read_key_table()}


def test_the_example_of_a_list_is_one() -> None:
    example = dict(KEYS.examples())["recommendations"]

    made = read_recommendations(example)

    assert made.items
    assert {strip_code_marks(row["field"]) for row in KEYS.tables("Lists")[0]} <= set(Recommendations.__struct_fields__)


def test_the_example_of_popular_items_has_the_fields_that_are_written(server: redis.Redis) -> None:
    example, written = dict(KEYS.examples())["popular"], server.get("shop:rec:popular")

    assert re.findall(r'"(\w+)":', example) == re.findall(r'"(\w+)":', str(written))


def test_the_fields_of_generations_are_those_that_are_written(server: redis.Redis) -> None:
    (fields,) = KEYS.tables("Generations")

    told = {name for row in fields for name in re.findall(r"`(\w+)`", row["field of `shop:generations`"])}
    assert told - {"layout"} | {str(LAYOUT)} == set(server.hgetall("shop:generations"))
    assert server.hget("shop:generations", str(LAYOUT)) == ""


def dtype_in_words(dtype: np.dtype[np.void]) -> str:
    """A field's type in the words of the page."""
    dimensions = "".join(f"{n} × " for n in dtype.shape)
    base = dtype.base
    return dimensions + (f"{base.itemsize} bytes" if base.names else f"{UNITS[base.kind]}{8 * base.itemsize}")


def test_the_layout_of_a_record_is_the_codes_own() -> None:
    # Given the fields of the record
    assert RECORD.names is not None
    assert RECORD.fields is not None
    fields = {name: (str(RECORD.fields[name][1]), dtype_in_words(RECORD.fields[name][0])) for name in RECORD.names}

    # When the table is read
    table, families = KEYS.tables("Profiles")

    # Then it is the same, and so are the digest and the families
    assert {strip_code_marks(row["field"]): (row["at"], row["type"]) for row in table} == fields
    assert str(LAYOUT) in table[0]["meaning"]
    assert [row["source"] for row in families] == list(FAMILIES)
    assert f"one record of {RECORD.itemsize} bytes" in KEYS.section("Profiles")
    assert len(WINDOWS) == 5


def test_the_formula_of_expiry_is_the_codes_own() -> None:
    days = [int(found) for found in re.findall(r"(\d+) days", KEYS.text.split("time to live = ")[1].splitlines()[0])]

    assert days == [HORIZON_MS // 86_400_000, (TTL_MS - HORIZON_MS) // 86_400_000, TTL_MS // 86_400_000]


def test_the_formula_of_memory_is_the_benchs_own() -> None:
    # Given the sum on the page
    section = KEYS.section("Memory")
    words = re.search(r"bytes = (\d+) × entities \+ the lengths of their keys \+ (\d+) × slices", section)

    # Then it is what the bench holds Redis to, and a flood takes one slice an id
    assert words is not None
    assert [int(number) for number in words.groups()] == [ENTITY_BYTES, SLICE_BYTES]
    assert f"within {OFF_MAX:.0%}".replace("%", " %") in section
    assert f"take {round(ENTITY_BYTES + SLICE_BYTES + 35, -1)} bytes each" in section
