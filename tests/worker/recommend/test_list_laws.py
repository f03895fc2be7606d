"""Laws of lists over random shops, bundles and users: valid, and not empty while popular items exist."""

import random
from collections.abc import Sequence

import numpy as np

from contract.hashing import item_hash
from contract.messages import Recommendations
from contract.units import HOUR_MS
from tests.worker.answers import read_messages
from tests.worker.browsing_harness import BrowsingHarness, make_click_record
from tests.worker.events import NOW_MS, make_click, make_order, make_product, make_record
from worker.model.item_tables import NeighbourTable

CLICKS = 100_000


def draw_neighbours(rng: random.Random, items: Sequence[str]) -> NeighbourTable:
    """A bundle's items, half of them unknown to the catalogue, each with random neighbours, and popular ones."""
    bundle_items = [*items, *(f"unknown-{n}" for n in range(len(items)))]
    rng.shuffle(bundle_items)
    count = len(bundle_items)
    rows = np.array([[rng.randrange(-1, count) for _ in range(5)] for _ in bundle_items], np.int32)
    hashes = np.array([item_hash(item) for item in bundle_items], np.uint64)
    popular = np.array(rng.sample(range(count), rng.randrange(count)), np.int32)
    return NeighbourTable(hashes, rows, np.ones(rows.shape, np.float32), popular, rng.choice([0.0, 1.0]))


def change_products(rng: random.Random, lane: BrowsingHarness, items: Sequence[str]) -> None:
    """Change random products: repeat, sell out, delist, restock, move to a category or to none."""
    for item in rng.choices(items, k=len(items) // 2):
        category = rng.choice([None, "shoes", "hats", f"only {item}"])
        if rng.random() < 0.3:
            lane.catalogue.delist(item)
        else:
            lane.catalogue.put(make_product(item, category=category, available=rng.random() < 0.7))


def find_list_mistakes(recommendations: Recommendations, lane: BrowsingHarness, bought: Sequence[str]) -> list[str]:
    """The defects of a list, as texts."""
    items = [item.item_id for item in recommendations.items]
    return [
        *(f"{item} twice" for item in set(items) if items.count(item) > 1),
        *(f"{item}, which is unavailable" for item in items if not lane.catalogue.is_available(item)),
        *(f"{item}, which was just bought" for item in items if item in bought),
    ]


def test_lists_are_valid_and_not_empty_while_popular_items_exist(seed: int) -> None:
    rng = random.Random(seed)
    lists = empty = 0
    for _ in range(30):
        lane = BrowsingHarness(explore=rng.choice([0.0, 0.2]))
        items = [f"p{n}" for n in range(rng.randrange(1, 30))]
        for item in items:
            lane.catalogue.put(make_product(item))
        neighbours = draw_neighbours(rng, items)
        lane.refresher.item_neighbours.activate(neighbours)
        lane.refresher.popularity.seed(lane.catalogue.find_hashes(neighbours.hashes[neighbours.popular]))
        for step in range(6):
            change_products(rng, lane, items)
            lane.run_periodic()
            bought = rng.sample(items, rng.randrange(min(4, len(items))))
            records = [make_click_record(f"c{step}", rng.choice([*items, "nowhere"]), "u", step)]
            records += [make_record(make_order(f"o{step}", *bought, user="u"), step)] if bought else []
            new_lists = read_messages(lane.answer(*records), Recommendations)
            popular = set(lane.catalogue.item_ids(lane.refresher.popularity.top)) - set(bought)

            assert [find_list_mistakes(new_list, lane, bought) for new_list in new_lists] == [[]] * len(new_lists)
            assert new_lists or not popular, f"A list should have some of {sorted(popular)}. Found no list."
            lists += len(new_lists)
            empty += not new_lists
    assert lists > empty  # the law does not hold merely for lack of lists


def test_a_user_with_many_clicks_gets_a_valid_list_at_each_refresh() -> None:
    # given a user with 28 clicks a second, read in batches of a second, and a refresh at most every ten seconds
    lane = BrowsingHarness(refresh_ms=10_000)
    clicks = [make_click(f"c{n}", f"i{n % 5}", ts_ms=NOW_MS + n * HOUR_MS // CLICKS) for n in range(CLICKS)]
    lists = []
    # when an hour passes
    for begin in range(0, CLICKS, 28):
        batch = enumerate(clicks[begin : begin + 28], begin)
        records = [
            make_record(click, offset, topic="shop.clicks")._replace(kafka_ms=click.ts_ms) for offset, click in batch
        ]
        lists += read_messages(lane.answer(*records, now_ms=clicks[begin].ts_ms), Recommendations)
    # then there is a valid list for each ten seconds, each of newer clicks than the one before
    assert 350 <= len(lists) <= 360
    assert all(new_list.items and not find_list_mistakes(new_list, lane, ()) for new_list in lists)
    assert (np.diff([new_list.source_ms for new_list in lists]) > 0).all()
