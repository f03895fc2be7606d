"""Laws of lists, whatever shop, bundle and users there are: valid, and never empty while popular items exist."""

import random
from collections.abc import Sequence

import numpy as np

from contract.rows import Recommendations
from tests.worker.lane import Lane, clicked
from tests.worker.shop import NOW_MS, click, order, product, record
from worker.item_index import item_hash
from worker.runtime import Neighbours

HOUR_MS = 3_600_000
CLICKS = 100_000


def drawn_neighbours(chance: random.Random, items: Sequence[str]) -> Neighbours:
    """A bundle's items, half of which no product describes, each with neighbours among them, and popular ones."""
    named = [*items, *(f"unknown-{n}" for n in range(len(items)))]
    chance.shuffle(named)
    count = len(named)
    rows = np.array([[chance.randrange(-1, count) for _ in range(5)] for _ in named], np.int32)
    hashes = np.array([item_hash(item) for item in named], np.uint64)
    popular = np.array(chance.sample(range(count), chance.randrange(count)), np.int32)
    return Neighbours(hashes, rows, np.ones(rows.shape, np.float32), popular, chance.choice([0.0, 1.0]))


def stir(chance: random.Random, lane: Lane, items: Sequence[str]) -> None:
    """Products change: told twice, sold out, delisted, back again, moved to a category or to none."""
    for item in chance.choices(items, k=len(items) // 2):
        category = chance.choice([None, "shoes", "hats", f"only {item}"])
        if chance.random() < 0.3:
            lane.catalogue.delist(item)
        else:
            lane.catalogue.put(product(item, category=category, available=chance.random() < 0.7))


def wrong(made: Recommendations, lane: Lane, bought: Sequence[str]) -> list[str]:
    """What is wrong with a list, in words."""
    items = [item.item_id for item in made.items]
    return [
        *(f"{item} twice" for item in set(items) if items.count(item) > 1),
        *(f"{item}, which cannot be had" for item in items if not lane.catalogue.available(item)),
        *(f"{item}, which was just bought" for item in items if item in bought),
    ]


def test_lists_are_valid_and_not_empty_while_something_popular_can_be_had(seed: int) -> None:
    chance, lists, empty = random.Random(seed), 0, 0
    for _ in range(30):
        lane, items = Lane(explore=chance.choice([0.0, 0.2])), [f"p{n}" for n in range(chance.randrange(1, 30))]
        for item in items:
            lane.catalogue.put(product(item))
        neighbours = drawn_neighbours(chance, items)
        lane.browser._nearby.serve(neighbours)
        lane.browser.popularity.begin_with(lane.catalogue.linked(neighbours.hashes[neighbours.popular]))
        for step in range(6):
            stir(chance, lane, items)
            lane.browser.look_around(lane.profiles)
            bought = chance.sample(items, chance.randrange(min(4, len(items))))
            records = [clicked(f"c{step}", chance.choice([*items, "never heard of"]), "u", step)]
            records += [record(order(f"o{step}", *bought, user="u"), step)] if bought else []
            made = [made for made, _ in lane.answer(*records).lists]
            popular = set(lane.catalogue.names(lane.browser.popularity.top)) - set(bought)

            assert [wrong(one, lane, bought) for one in made] == [[]] * len(made)
            assert made or not popular, f"Of {sorted(popular)} something should be on a list. Found none."
            lists, empty = lists + len(made), empty + (not made)
    assert lists > empty  # the law was not kept for want of lists


def test_a_user_with_a_hundred_thousand_clicks_an_hour_has_a_valid_list_each_time_it_is_due() -> None:
    # given a user who opens a page 28 times a second, read a second at a time, whose list may be made every ten
    lane = Lane(refresh_ms=10_000)
    clicks = [click(f"c{n}", f"i{n % 5}", ts_ms=NOW_MS + n * HOUR_MS // CLICKS) for n in range(CLICKS)]
    lists = []
    # when an hour passes
    for begin in range(0, CLICKS, 28):
        some = enumerate(clicks[begin : begin + 28], begin)
        records = [record(one, offset, topic="shop.clicks")._replace(kafka_ms=one.ts_ms) for offset, one in some]
        lists += [made for made, _ in lane.answer(*records, now_ms=clicks[begin].ts_ms).lists]
    # then there is one for each ten seconds, each of newer clicks than the one before, and none is wrong
    assert 350 <= len(lists) <= 360
    assert all(made.items and not wrong(made, lane, ()) for made in lists)
    assert (np.diff([made.source_ms for made in lists]) > 0).all()
