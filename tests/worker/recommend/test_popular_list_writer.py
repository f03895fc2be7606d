"""Popular lists in Redis: what has changed is written at once, everything by and by."""

from collections.abc import Iterator, Mapping, Sequence

import pytest

from contract.errors import Unavailable
from contract.features.encoder import Encoder
from contract.settings import ListSettings
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.recommend.popular_list_writer import REWRITE_CYCLE, PopularListWriter
from worker.redis.client import RedisClient
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache

CATEGORIES = ("shoes", "hats", "empty", "mugs")


class RecordingCaches:
    """Caches that note what they are given; `fails` once if told so."""

    def __init__(self) -> None:
        self.written: list[dict[str, list[str]]] = []
        self.fails = False

    def write_popular(self, popular: Mapping[str, Sequence[str]], now_ms: int) -> None:
        if self.fails:
            self.fails = False
            raise Unavailable("Redis should answer. Found that it does not.")
        self.written.append({category: list(items) for category, items in popular.items()})


class PopularListsHarness:
    """Two items in each category but the empty one; which are popular, the test says."""

    def __init__(self, caches: AnswerCache | RecordingCaches, length: int = 3) -> None:
        self.catalogue = Catalogue(Encoder(FEATURES))
        for category in CATEGORIES:
            for n in range(2):
                self.catalogue.put(make_product(f"{category}-{n}", category=category, available=category != "empty"))
        self.popularity = Popularity(self.catalogue, 5.0)
        self.lists = PopularListWriter(
            answer_cache=caches,  # type: ignore[arg-type]
            catalogue=self.catalogue,
            popularity=self.popularity,
            length=length,
        )

    def set_popular(self, *items: str) -> None:
        self.popularity.seed(self.catalogue.find(items))
        self.popularity.rank()


def test_at_first_every_list_is_written_but_that_of_a_category_without_items() -> None:
    writes = RecordingCaches()
    shop = PopularListsHarness(writes)
    shop.set_popular("hats-1", "shoes-0", "shoes-1", "mugs-0")

    shop.lists.write(NOW_MS)

    assert writes.written == [
        {
            "": ["hats-1", "shoes-0", "shoes-1"],
            "shoes": ["shoes-0", "shoes-1"],
            "hats": ["hats-1"],
            "mugs": ["mugs-0"],
        }
    ]


def test_then_only_what_has_changed_and_every_list_once_a_round() -> None:
    # given
    writes = RecordingCaches()
    shop = PopularListsHarness(writes)
    shop.set_popular("hats-1", "shoes-0", "shoes-1")
    shop.lists.write(NOW_MS)
    writes.written.clear()
    # when one category's order changes, and then nothing
    shop.set_popular("hats-1", "shoes-1", "shoes-0")
    shop.lists.write(NOW_MS)
    # then
    changed = {"": ["hats-1", "shoes-1", "shoes-0"], "shoes": ["shoes-1", "shoes-0"]}
    assert writes.written[0] == changed
    # when
    for _ in range(REWRITE_CYCLE - 1):
        shop.lists.write(NOW_MS)
    # then
    again = [category for made in writes.written[1:] for category in made]
    assert sorted(again) == ["", "hats"]  # the round's turn of shoes was that of the change
    # and when another round passes
    writes.written.clear()
    for _ in range(REWRITE_CYCLE):
        shop.lists.write(NOW_MS)
    assert sorted(category for made in writes.written for category in made) == ["", "hats", "shoes"]


def test_what_redis_did_not_take_is_due_again() -> None:
    writes = RecordingCaches()
    shop = PopularListsHarness(writes)
    shop.set_popular("hats-1")
    writes.fails = True

    with pytest.raises(Unavailable):
        shop.lists.write(NOW_MS)
    shop.lists.write(NOW_MS)

    assert writes.written == [{"": ["hats-1"], "hats": ["hats-1"]}]


def test_the_list_of_a_category_that_is_sold_out_goes_and_one_that_others_wrote_stays(client: RedisClient) -> None:
    # given
    client.pipeline([("SET", "shop:rec:popular:empty", b"of another worker")])
    shop = PopularListsHarness(AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60)))
    shop.set_popular("hats-1", "shoes-0")
    shop.lists.write(NOW_MS)
    # when
    shop.catalogue.put(make_product("hats-1", category="hats", stock=0))
    shop.set_popular("hats-1", "shoes-0")
    shop.lists.write(NOW_MS)
    # then
    keys = [f"shop:rec:popular:{category}" for category in ("hats", "shoes", "empty")]
    assert [value is not None for value in client.pipeline([("GET", key) for key in keys])] == [False, True, True]


def test_a_category_that_comes_later_has_its_list_at_once() -> None:
    writes = RecordingCaches()
    shop = PopularListsHarness(writes)
    shop.set_popular("hats-1")
    shop.lists.write(NOW_MS)
    shop.catalogue.put(make_product("pot-1", category="pots"))
    shop.set_popular("hats-1", "pot-1")

    shop.lists.write(NOW_MS)

    assert writes.written[-1]["pots"] == ["pot-1"]


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def test_lists_that_redis_lost_are_there_again_within_a_round(client: RedisClient) -> None:
    # given
    shop = PopularListsHarness(AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60)))
    shop.set_popular("hats-1", "shoes-0")
    shop.lists.write(NOW_MS)
    keys = ["shop:rec:popular", "shop:rec:popular:hats", "shop:rec:popular:shoes"]
    client.pipeline([("DEL", key) for key in keys])
    # when
    for _ in range(REWRITE_CYCLE):
        shop.lists.write(NOW_MS)
    # then
    assert all(client.pipeline([("GET", key) for key in keys]))
