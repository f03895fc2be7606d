"""docs/keys.md describes every Redis key that workers write, with type and expiry, and the binary layouts."""

import re
from typing import Final

import msgspec
import numpy as np
import pytest
import redis
from msgspec.structs import replace

from bench.performance.memory import (
    ENTITY_BYTES,
    ENTRY_BYTES,
    HISTORY_BYTES,
    HISTORY_USER_BYTES,
    OFF_MAX,
    SLICE_BYTES,
)
from contract.events.model import Click
from contract.messages import (
    Decision,
    ListedItem,
    PlacementKeys,
    Ranking,
    Recommendations,
    RecommendedItem,
    ScoredRow,
    ShopList,
    read_recommendations,
)
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.histories import ACTIONS, ENTRY, HISTORY_LAYOUT, HISTORY_MAX
from contract.profiles.record import FAMILIES, HORIZON_MS, LAYOUT, RECORD, WINDOWS
from contract.profiles.store import fold
from contract.settings.placements import PlacementSettings
from contract.settings.reading import Settings
from contract.settings.servers import RedisSettings
from contract.settings.worker import ListSettings
from tests.docs.pages import KEYS, Row, strip_code_marks
from tests.worker.answers import make_answer
from tests.worker.events import make_order
from transport.records import TopicPartition
from worker.doctor.rule_reports import RuleReport, RuleReporter
from worker.erasure.progress import ErasureProgress, owner_field
from worker.people.redis_store import RedisPeopleStore
from worker.records.answers import DECISION, LIST, RANKING, Answer
from worker.redis.client import RedisClient
from worker.state.answer_cache import AnswerCache
from worker.state.claim_store import ClaimStore
from worker.state.generations import Generations, generation_prefix
from worker.state.history_registry import HistoryRegistry
from worker.state.profile_store import TTL_MS, RedisProfileStore
from worker.state.settings_record import report_changed_settings

SECONDS: Final = {"days": 86_400, "hours": 3_600, "hour": 3_600, "minutes": 60}
SLACK_S: Final = 60
UNITS: Final = {"u": "uint", "i": "int"}


def read_key_table() -> list[Row]:
    return KEYS.tables("What is in Redis")[0]


def key_pattern(key: str) -> str:
    """A key of the table as a pattern; in binary keys the braces around the bucket are part of the key."""
    hash_tagged = (
        key.replace("{bucket}", r"\{[0-9]+\}") if re.search(":(profile|history|people|buyers|merged):", key) else key
    )
    return re.sub(r"\{\w+\}", "[^:]+", hash_tagged.replace("{kind}:{id}", "[a-z]+:[^:{}]+"))


def find_row(key: str) -> Row:
    """The row that describes a key; the one with the fewest placeholders, if several match."""
    matching = [row for row in read_key_table() if re.fullmatch(key_pattern(strip_code_marks(row["key"])), key)]
    assert matching, f"{key} should be described. Found no row for it."
    return min(matching, key=lambda row: row["key"].count("{"))


def parse_ttl_s(words: str) -> int:
    """An expiry in words; -1, as in Redis, for none."""
    if words == "none":
        return -1
    number, unit = re.match(r"(\d+) (\w+)", words).groups()  # type: ignore[union-attr]
    return int(number) * SECONDS[unit]


@pytest.fixture
def server(redis_url: str) -> redis.Redis:
    """A Redis with the keys of every writer of the worker."""
    prefix, client = RedisSettings().prefix, RedisClient(url=redis_url, timeout_s=5)
    lists = ListSettings()
    write_claims(ClaimStore(client=client, prefix=prefix, ttl_s=lists.decision_ttl_s))
    write_caches(AnswerCache(client=client, prefix=prefix, lists=lists))
    click = Click(event_id="c-1", ts_ms=0, user_id="u-17", item_id="mug-blue")
    updates = to_updates([Arrival("clicks/0", 0, click)])
    profiles = RedisProfileStore(client=client, prefix=prefix)
    writes = fold([{} for _ in updates.entities], updates).slice_writes()
    profiles.merge(writes, {}, {bucket: {"clicks/0": 1} for bucket in range(64)})
    profiles.write_history_starts({"clicks/0": 0})
    order = make_order("o-1", "mug-blue")
    RedisPeopleStore(client=client, prefix=prefix).add(to_updates([Arrival("orders/0", 0, order)]))
    marks = ErasureProgress(profiles=RedisProfileStore(client=client, prefix=prefix))
    marks.write([owner_field("orders", TopicPartition("shop.orders", 0))], {"erasures/0": 1})
    report_changed_settings(client, Settings())
    marks.request_confirmation({"erasures/0": 0})
    generations = Generations(client=client, prefix=prefix)
    generations.open()
    built = RedisProfileStore(client=client, prefix=generation_prefix(prefix, str(generations.begin_build())))
    built.write_log_starts({"searches/0": 1})
    HistoryRegistry(built).write({"searches~history.aa/0": 1})
    client.close()
    return redis.Redis.from_url(redis_url, decode_responses=True)


def write_claims(claims: ClaimStore) -> None:
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
    claims.claim([Answer(DECISION, scored, decision, "aa")])
    claims.claim([Answer(DECISION, replace(scored, offset=1), decision, "bb")])
    claims.delete_erased({"u-18": 0}, lambda *_: True)


def write_caches(caches: AnswerCache) -> None:
    item = RecommendedItem(item_id="mug-blue", score=1.0, probability={}, why="popular")
    recommendations = Recommendations(
        user_id="u-17", recommendation_id="r-1", items=(item,), model_version="", computed_ms=0, source_ms=0
    )
    ranking = Ranking(event_id="s-1", user_id="u-17", query="mug", items=(), relevance=(), model_version="")
    caches.write([make_answer(LIST, recommendations), make_answer(RANKING, ranking)])
    caches.write_popular({"": ["mug-blue"], "kitchen": ["mug-blue"]}, now_ms=0)
    listed = (ListedItem(item_id="mug-blue", score=1.0, why="trending"),)
    keys = ("trending", "trending:kitchen", "similar:mug-red", "together:mug-red")
    caches.write_shop_lists({key: ShopList(items=listed, computed_ms=0, model_version="v") for key in keys})
    caches.write_placements({"home": PlacementKeys(length=1, keys=("trending",))})
    report = RuleReport(rules=1, digest="aa", refused="", unknown=(), suspended=())
    RuleReporter(caches.client, RedisSettings().prefix, "0").write(report, now_ms=0)


def test_every_written_key_is_documented_with_type_and_expiry(server: redis.Redis) -> None:
    # given all keys that workers write
    keys = list(server.scan_iter("*"))

    # then each has the type and expiry of its row
    for key in keys:
        row, ttl_s = find_row(key), int(server.ttl(key))
        documented_s = parse_ttl_s(row["time to live"])
        assert row["type"] == server.type(key), key
        assert documented_s == ttl_s if documented_s < 0 else documented_s - SLACK_S < ttl_s <= documented_s, key

    # and each row describes at least one key
    assert {find_row(key)["key"] for key in keys} == {row["key"] for row in read_key_table()}


def test_the_example_of_a_list_decodes() -> None:
    example = dict(KEYS.examples())["recommendations"]

    recommendations = read_recommendations(example)

    assert recommendations.items
    assert {strip_code_marks(row["field"]) for row in KEYS.tables("Lists")[0]} <= set(Recommendations.__struct_fields__)


def test_the_example_of_popular_items_has_the_written_fields(server: redis.Redis) -> None:
    example, written = dict(KEYS.examples())["popular"], server.get("shop:rec:popular")

    assert re.findall(r'"(\w+)":', example) == re.findall(r'"(\w+)":', str(written))


def test_the_example_of_a_list_of_the_shop_decodes() -> None:
    example = msgspec.json.decode(dict(KEYS.examples())["shop_list"], type=ShopList)
    reasons = {why for row in KEYS.tables("Lists of the shop")[0] for why in re.findall(r"`(\w+)`", row["`why`"])}

    assert {item.why for item in example.items} <= reasons == {"neighbour", "vector", "together", "trending"}


def test_the_example_of_placements_is_the_default() -> None:
    example = msgspec.json.decode(dict(KEYS.examples())["placements"], type=dict[str, PlacementKeys])

    placements = PlacementSettings().by_name()
    assert example == {name: PlacementKeys(length=own.length, keys=own.keys) for name, own in placements.items()}


def test_the_documented_fields_of_generations_are_written(server: redis.Redis) -> None:
    (fields,) = KEYS.tables("Generations")

    documented = {name for row in fields for name in re.findall(r"`(\w+)`", row["field of `shop:generations`"])}
    assert documented - {"layout"} | {str(LAYOUT)} == set(server.hgetall("shop:generations"))
    assert server.hget("shop:generations", str(LAYOUT)) == ""


def dtype_in_words(dtype: np.dtype[np.void]) -> str:
    """A field's type in the words of docs/keys.md."""
    dimensions = "".join(f"{n} × " for n in dtype.shape)
    base = dtype.base
    return dimensions + (f"{base.itemsize} bytes" if base.names else f"{UNITS[base.kind]}{8 * base.itemsize}")


def test_the_documented_layout_of_a_record_equals_the_dtype() -> None:
    # given the fields of the record
    assert RECORD.names is not None
    assert RECORD.fields is not None
    fields = {name: (str(RECORD.fields[name][1]), dtype_in_words(RECORD.fields[name][0])) for name in RECORD.names}

    # when the table is read
    table, families = KEYS.tables("Profiles")

    # then it is the same, and so are the layout number and the families
    assert {strip_code_marks(row["field"]): (row["at"], row["type"]) for row in table} == fields
    assert str(LAYOUT) in table[0]["meaning"]
    assert [row["source"] for row in families] == list(FAMILIES)
    assert f"one record of {RECORD.itemsize} bytes" in KEYS.section("Profiles")
    assert len(WINDOWS) == 5


def test_the_documented_layout_of_a_history_equals_the_dtype() -> None:
    # given the fields of an entry
    assert ENTRY.names is not None
    assert ENTRY.fields is not None
    fields = {name: (str(ENTRY.fields[name][1]), dtype_in_words(ENTRY.fields[name][0])) for name in ENTRY.names}

    # when the table is read
    (table,) = KEYS.tables("Histories")

    # then it is the same, and so are the layout number, the length and the actions
    assert {strip_code_marks(row["field"]): (row["at"], row["type"]) for row in table} == fields
    section = KEYS.section("Histories")
    assert f"{HISTORY_LAYOUT} for this layout" in section
    assert f"1 to {HISTORY_MAX} entries of {ENTRY.itemsize} bytes" in section
    assert f"{ACTIONS['clicks']} click, {ACTIONS['orders']} order" in table[2]["meaning"]


def test_the_documented_expiry_formula_equals_the_code() -> None:
    days = [int(number) for number in re.findall(r"(\d+) days", KEYS.text.split("time to live = ")[1].splitlines()[0])]

    assert days == [HORIZON_MS // 86_400_000, (TTL_MS - HORIZON_MS) // 86_400_000, TTL_MS // 86_400_000]


def test_the_documented_memory_formula_is_the_one_that_the_bench_checks() -> None:
    # given the formula on the page
    section = KEYS.section("Memory")
    words = re.search(r"bytes = (\d+) × entities \+ the lengths of their keys \+ (\d+) × slices", section)

    # then the bench checks Redis against it, and a flood takes one slice per id
    assert words is not None
    assert [int(number) for number in words.groups()] == [ENTITY_BYTES, SLICE_BYTES]
    histories = re.search(
        r"bytes = (\d+) × users \+ the lengths of their keys \+ (\d+) × histories \+ (\d+) × entries", section
    )
    assert histories is not None
    assert [int(number) for number in histories.groups()] == [HISTORY_USER_BYTES, HISTORY_BYTES, ENTRY_BYTES]
    assert f"within {OFF_MAX:.0%}".replace("%", " %") in section
    assert f"take {round(ENTITY_BYTES + SLICE_BYTES + 35, -1)} bytes each" in section
