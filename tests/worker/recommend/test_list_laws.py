"""Laws of lists, whatever shop, bundle and users there are: valid, and never empty while popular items exist."""

import random
from collections.abc import Sequence

import numpy as np

from contract.hashing import item_hash
from contract.messages import Recommendations
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import NOW_MS, make_click, make_order, make_product, make_record
from worker.model.onnx_model import NeighbourTable

HOUR_MS = 3_600_000
CLICKS = 100_000


def draw_neighbours(rng: random.Random, items: Sequence[str]) -> NeighbourTable:
    """A bundle's items, half of which no product describes, each with neighbours among them, and popular ones."""
    named = [*items, *(f"unknown-{n}" for n in range(len(items)))]
    rng.shuffle(named)
    count = len(named)
    rows = np.array([[rng.randrange(-1, count) for _ in range(5)] for _ in named], np.int32)
    hashes = np.array([item_hash(item) for item in named], np.uint64)
    popular = np.array(rng.sample(range(count), rng.randrange(count)), np.int32)
    return NeighbourTable(hashes, rows, np.ones(rows.shape, np.float32), popular, rng.choice([0.0, 1.0]))


def change_products(rng: random.Random, lane: BrowsingHarness, items: Sequence[str]) -> None:
    """Products change: told twice, sold out, delisted, back again, moved to a category or to none."""
    for item in rng.choices(items, k=len(items) // 2):
        category = rng.choice([None, "shoes", "hats", f"only {item}"])
        if rng.random() < 0.3:
            lane.catalogue.delist(item)
        else:
            lane.catalogue.put(make_product(item, category=category, available=rng.random() < 0.7))


def find_list_mistakes(recommendations: Recommendations, lane: BrowsingHarness, bought: Sequence[str]) -> list[str]:
    """What is wrong with a list, in words."""
    items = [item.item_id for item in recommendations.items]
    return [
        *(f"{item} twice" for item in set(items) if items.count(item) > 1),
        *(f"{item}, which cannot be had" for item in items if not lane.catalogue.is_available(item)),
        *(f"{item}, which was just bought" for item in items if item in bought),
    ]


def test_lists_are_valid_and_not_empty_while_something_popular_can_be_had(seed: int) -> None:
    rng, lists, empty = random.Random(seed), 0, 0
    for _ in range(30):
        lane, items = BrowsingHarness(explore=rng.choice([0.0, 0.2])), [f"p{n}" for n in range(rng.randrange(1, 30))]
        for item in items:
            lane.catalogue.put(make_product(item))
        neighbours = draw_neighbours(rng, items)
        lane.browser._item_neighbours.activate(neighbours)
        lane.browser.popularity.seed(lane.catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
        for step in range(6):
            change_products(rng, lane, items)
            lane.browser.refresh_periodic(lane.profiles)
            bought = rng.sample(items, rng.randrange(min(4, len(items))))
            records = [make_click_record(f"c{step}", rng.choice([*items, "never heard of"]), "u", step)]
            records += [make_record(make_order(f"o{step}", *bought, user="u"), step)] if bought else []
            made = [made for made, _ in lane.answer(*records).lists]
            popular = set(lane.catalogue.item_ids(lane.browser.popularity.top)) - set(bought)

            assert [find_list_mistakes(one, lane, bought) for one in made] == [[]] * len(made)
            assert made or not popular, f"Of {sorted(popular)} something should be on a list. Found none."
            lists, empty = lists + len(made), empty + (not made)
    assert lists > empty  # the law was not kept for want of lists


def test_a_user_with_a_hundred_thousand_clicks_an_hour_has_a_valid_list_each_time_it_is_due() -> None:
    # given a user who opens a page 28 times a second, read a second at a time, whose list may be made every ten
    lane = BrowsingHarness(refresh_ms=10_000)
    clicks = [make_click(f"c{n}", f"i{n % 5}", ts_ms=NOW_MS + n * HOUR_MS // CLICKS) for n in range(CLICKS)]
    lists = []
    # when an hour passes
    for begin in range(0, CLICKS, 28):
        some = enumerate(clicks[begin : begin + 28], begin)
        records = [make_record(one, offset, topic="shop.clicks")._replace(kafka_ms=one.ts_ms) for offset, one in some]
        lists += [made for made, _ in lane.answer(*records, now_ms=clicks[begin].ts_ms).lists]
    # then there is one for each ten seconds, each of newer clicks than the one before, and none is wrong
    assert 350 <= len(lists) <= 360
    assert all(made.items and not find_list_mistakes(made, lane, ()) for made in lists)
    assert (np.diff([made.source_ms for made in lists]) > 0).all()
