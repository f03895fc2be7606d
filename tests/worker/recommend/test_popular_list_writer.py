"""Popular lists in Redis: changed lists are written at once, all lists once a cycle."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from contract.errors import Unavailable
from contract.features.encoder import Encoder
from contract.settings.worker import ListSettings
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.recommend.due_lists import REWRITE_CYCLE
from worker.recommend.popular_list_writer import PopularListWriter
from worker.redis.client import RedisClient
from worker.retrieval.popularity import Popularity
from worker.rules.list_rules import ListRules
from worker.rules.rule_file import RuleFile
from worker.state.answer_cache import AnswerCache

CATEGORIES = ("shoes", "hats", "empty", "mugs")


class RecordingCache:
    """Records the lists that are written; `fails` makes the next write fail."""

    def __init__(self) -> None:
        self.written: list[dict[str, list[str]]] = []
        self.rules: list[dict[str, dict[str, str]]] = []
        self.fails = False

    def write_popular(
        self, popular: Mapping[str, Sequence[str]], now_ms: int, rules: Mapping[str, Mapping[str, str]]
    ) -> None:
        if self.fails:
            self.fails = False
            raise Unavailable("Redis should answer. Found no answer.")
        self.written.append({category: list(items) for category, items in popular.items()})
        self.rules.append({category: dict(names) for category, names in rules.items()})


class PopularListsHarness:
    """A catalogue with two items in each category, sold out in one, and the writer of its popular lists."""

    def __init__(self, cache: AnswerCache | RecordingCache, length: int = 3) -> None:
        self.catalogue = Catalogue(Encoder(FEATURES))
        for category in CATEGORIES:
            for n in range(2):
                self.catalogue.put(make_product(f"{category}-{n}", category=category, available=category != "empty"))
        self.popularity = Popularity(self.catalogue, 5.0)
        self.writer = PopularListWriter(
            answer_cache=cache,  # type: ignore[arg-type]
            catalogue=self.catalogue,
            popularity=self.popularity,
            length=length,
        )

    def set_popular(self, *items: str) -> None:
        self.popularity.seed(self.catalogue.find(items))
        self.popularity.rank()


def test_the_first_write_has_every_list_that_is_not_empty() -> None:
    cache = RecordingCache()
    harness = PopularListsHarness(cache)
    harness.set_popular("hats-1", "shoes-0", "shoes-1", "mugs-0")

    harness.writer.write(NOW_MS)

    assert cache.written == [
        {
            "": ["hats-1", "shoes-0", "shoes-1"],
            "shoes": ["shoes-0", "shoes-1"],
            "hats": ["hats-1"],
            "mugs": ["mugs-0"],
        }
    ]


def test_later_writes_have_changed_lists_and_each_list_once_a_cycle() -> None:
    # given
    cache = RecordingCache()
    harness = PopularListsHarness(cache)
    harness.set_popular("hats-1", "shoes-0", "shoes-1")
    harness.writer.write(NOW_MS)
    cache.written.clear()
    # when the order of one category changes
    harness.set_popular("hats-1", "shoes-1", "shoes-0")
    harness.writer.write(NOW_MS)
    # then
    changed = {"": ["hats-1", "shoes-1", "shoes-0"], "shoes": ["shoes-1", "shoes-0"]}
    assert cache.written[0] == changed
    # when the rest of the cycle passes
    for _ in range(REWRITE_CYCLE - 1):
        harness.writer.write(NOW_MS)
    # then
    rewritten = [category for lists in cache.written[1:] for category in lists]
    assert sorted(rewritten) == ["", "hats"]  # the turn of shoes in this cycle was the write of its change
    # when another cycle passes
    cache.written.clear()
    for _ in range(REWRITE_CYCLE):
        harness.writer.write(NOW_MS)
    # then
    assert sorted(category for lists in cache.written for category in lists) == ["", "hats", "shoes"]


def test_lists_of_a_failed_write_are_due_again() -> None:
    cache = RecordingCache()
    harness = PopularListsHarness(cache)
    harness.set_popular("hats-1")
    cache.fails = True

    with pytest.raises(Unavailable):
        harness.writer.write(NOW_MS)
    harness.writer.write(NOW_MS)

    assert cache.written == [{"": ["hats-1"], "hats": ["hats-1"]}]


def test_the_list_of_a_sold_out_category_is_deleted_if_written_here(client: RedisClient) -> None:
    # given
    client.pipeline([("SET", "shop:rec:popular:empty", b"of another worker")])
    harness = PopularListsHarness(AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60)))
    harness.set_popular("hats-1", "shoes-0")
    harness.writer.write(NOW_MS)
    # when
    harness.catalogue.put(make_product("hats-1", category="hats", stock=0))
    harness.set_popular("hats-1", "shoes-0")
    harness.writer.write(NOW_MS)
    # then
    keys = [f"shop:rec:popular:{category}" for category in ("hats", "shoes", "empty")]
    assert [value is not None for value in client.pipeline([("GET", key) for key in keys])] == [False, True, True]


def test_a_new_category_gets_its_list_at_once() -> None:
    cache = RecordingCache()
    harness = PopularListsHarness(cache)
    harness.set_popular("hats-1")
    harness.writer.write(NOW_MS)
    harness.catalogue.put(make_product("pot-1", category="pots"))
    harness.set_popular("hats-1", "pot-1")

    harness.writer.write(NOW_MS)

    assert cache.written[-1]["pots"] == ["pot-1"]


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def test_lists_lost_by_redis_are_rewritten_within_a_cycle(client: RedisClient) -> None:
    # given
    harness = PopularListsHarness(AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60)))
    harness.set_popular("hats-1", "shoes-0")
    harness.writer.write(NOW_MS)
    keys = ["shop:rec:popular", "shop:rec:popular:hats", "shop:rec:popular:shoes"]
    client.pipeline([("DEL", key) for key in keys])
    # when
    for _ in range(REWRITE_CYCLE):
        harness.writer.write(NOW_MS)
    # then
    assert all(client.pipeline([("GET", key) for key in keys]))


def write_ruled(path: Path, *rules: str) -> tuple[RecordingCache, PopularListsHarness]:
    """The lists of three popular items, and of an unpopular one, under these rules."""
    cache = RecordingCache()
    path.write_text("rules = []\n" if not rules else "\n".join(f"[[rules]]\n{rule}\n" for rule in rules))
    harness = PopularListsHarness(cache)
    list_rules = ListRules(harness.catalogue, FEATURES, RuleFile(path, FEATURES))
    list_rules.refresh(NOW_MS)
    harness.writer = PopularListWriter(
        answer_cache=cache,  # type: ignore[arg-type]
        catalogue=harness.catalogue,
        popularity=harness.popularity,
        length=3,
        rules=list_rules,
    )
    harness.set_popular("hats-1", "shoes-0", "shoes-1", "mugs-0")
    harness.writer.write(NOW_MS)
    return cache, harness


def test_popular_lists_obey_rules_and_name_those_that_acted(tmp_path: Path) -> None:
    cache, _ = write_ruled(
        tmp_path / "rules.toml",
        'name = "no hats"\naction = "exclude"\ncategories = ["hats"]',
        'name = "first"\naction = "pin"\nitems = ["mugs-1"]',
        'name = "more"\naction = "boost"\nitems = ["shoes-1"]\nfactor = 100',
        'name = "two"\naction = "cap"\nper = "category"\nmax = 1',
    )

    assert cache.written == [
        {"": ["mugs-1", "shoes-1"], "shoes": ["shoes-1", "shoes-0"], "mugs": ["mugs-1", "mugs-0"], "hats": []}
    ]
    assert cache.rules == [
        {
            "": {"mugs-1": "first", "shoes-1": "more"},
            "shoes": {"shoes-1": "more"},
            "mugs": {"mugs-1": "first"},
        }
    ]


def test_rules_of_personal_lists_do_not_concern_popular_ones(tmp_path: Path) -> None:
    cache, _ = write_ruled(
        tmp_path / "rules.toml", 'name = "no hats"\naction = "exclude"\ncategories = ["hats"]\nlists = ["personal"]'
    )

    assert cache.written[0][""] == ["hats-1", "shoes-0", "shoes-1"]
    assert cache.rules == [{}]
