"""Trending lists in Redis: who writes which, what they hold, and when they are deleted."""

from collections.abc import Iterator

import msgspec
import pytest

from contract.features.encoder import Encoder
from contract.messages import ShopList
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore
from contract.settings.worker import ListSettings
from tests.worker.events import FEATURES, NOW_MS, make_click, make_product
from worker.catalogue.catalogue import Catalogue
from worker.people.samples import InMemoryPeopleStore
from worker.recommend.item_share import WHOLE, ItemShare
from worker.recommend.trending_list_writer import TrendingListWriter
from worker.redis.client import RedisClient
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

CATEGORIES = ("shoes", "hats", "mugs")


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


class TrendingHarness:
    """A shop with two items of each category, of which item n has n + 1 people."""

    def __init__(self, client: RedisClient, length: int = 3) -> None:
        self.client = client
        self.catalogue = Catalogue(Encoder(FEATURES))
        self.items = [f"{category}-{n}" for category in CATEGORIES for n in range(2)]
        for item in self.items:
            self.catalogue.put(make_product(item, category=item[:-2]))
        people = InMemoryPeopleStore()
        clicks = [
            make_click(f"{item}{n}", item, user=f"u{n}")
            for place, item in enumerate(self.items)
            for n in range(place + 1)
        ]
        people.add(to_updates([Arrival("clicks/0", n, event) for n, event in enumerate(clicks)]))
        self.popularity = Popularity(self.catalogue, 5.0, people)
        self.popularity.sweep(InMemoryProfileStore(), NOW_MS)
        self.popularity.rank()
        self.writer = self.open_writer(length)

    def open_writer(self, length: int = 3) -> TrendingListWriter:
        cache = AnswerCache(client=self.client, prefix="shop:", lists=ListSettings(ttl_s=60))
        return TrendingListWriter(
            answer_cache=cache, catalogue=self.catalogue, popularity=self.popularity, length=length
        )

    def read(self) -> dict[str, list[str]]:
        keys = sorted(key for page in self.client.scan("shop:trending") for key in page)
        values = self.client.pipeline([("GET", key) for key in keys])
        lists = [msgspec.json.decode(value, type=ShopList) for value in values]
        return {
            key.removeprefix("shop:"): [item.item_id for item in shop_list.items]
            for key, shop_list in zip(keys, lists, strict=True)
        }


def test_lists_have_items_with_their_people_and_a_reason(client: RedisClient) -> None:
    harness = TrendingHarness(client)

    harness.writer.write(NOW_MS, WHOLE)

    assert harness.read() == {
        "trending": ["mugs-1", "mugs-0", "hats-1"],
        "trending:shoes": ["shoes-1", "shoes-0"],
        "trending:hats": ["hats-1", "hats-0"],
        "trending:mugs": ["mugs-1", "mugs-0"],
    }
    ((value, ttl),) = [client.pipeline([("GET", "shop:trending"), ("TTL", "shop:trending")])]
    first = msgspec.json.decode(value, type=ShopList).items[0]
    assert (first.score, first.why) == (6.0, "trending")
    assert 0 < ttl <= 60


def test_each_list_has_one_writer_and_goes_over_with_the_partitions(client: RedisClient) -> None:
    # given two workers with partitions of their own
    harness = TrendingHarness(client)
    shares = ItemShare(frozenset({0, 2}), 4), ItemShare(frozenset({1, 3}), 4)
    written = []
    for share in shares:
        client.pipeline([("FLUSHALL",)])
        harness.open_writer().write(NOW_MS, share)
        written.append(set(harness.read()))
    assert written[0] | written[1] == {"trending", *(f"trending:{category}" for category in CATEGORIES)}
    assert not written[0] & written[1]
    # when one of them takes over all partitions, and one has none
    client.pipeline([("FLUSHALL",)])
    harness.writer.write(NOW_MS, ItemShare(frozenset(), 0))
    assert harness.read() == {}
    for _ in range(60):
        harness.writer.write(NOW_MS, ItemShare(frozenset(range(4)), 4))
    # then
    assert set(harness.read()) == written[0] | written[1]


def test_the_list_of_a_sold_out_category_is_deleted(client: RedisClient) -> None:
    harness = TrendingHarness(client)
    harness.writer.write(NOW_MS, WHOLE)
    for item in ("hats-0", "hats-1"):
        harness.catalogue.put(make_product(item, category="hats", stock=0))
    harness.popularity.rank()

    harness.writer.write(NOW_MS, WHOLE)

    assert "trending:hats" not in harness.read()
    assert harness.read()["trending"] == ["mugs-1", "mugs-0", "shoes-1"]
