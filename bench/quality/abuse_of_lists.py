"""`python -m bench abuse-of-lists`: what accounts that click one item again and again reach in the lists of a shop.

A day of a shop with 500 items: 20,000 clicks and 1,000 orders of 2,000 people, half of them on a tenth of the items,
by the parts of two browsing workers over one Redis, one for each partition of the clicks. Then one account clicks an
item that few people visit 10,000 times, within an hour; then, in another such shop, 100 accounts click it 100 times
each; and for comparison 100 people click it once. Ranks are those of the keys that the workers wrote, from 1, or null
where the item is not on a list of 200 (50 of a category). `moved` are the places of all lists that are another item's.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from bench.results.report import print_missed, print_progress, print_result
from contract.events.model import Click, Event, Line, Order, Product
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.hashing import hash_text
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import MergedOffsets, fold
from contract.settings.reading import Settings
from contract.settings.servers import RedisSettings
from contract.settings.worker import ListSettings
from contract.units import DAY_MS, HOUR_MS
from devservers.redis_server import RedisServer
from worker.catalogue.catalogue import Catalogue
from worker.people.redis_store import RedisPeopleStore
from worker.recommend.item_share import ItemShare
from worker.recommend.shared_lists import SharedLists
from worker.records.answers import LIST
from worker.redis.client import RedisClient
from worker.redis.cluster import connect
from worker.retrieval.popularity import Popularity
from worker.state.resources import open_stores

ITEMS, CATEGORIES, PEOPLE = 500, 10, 2_000
CLICKS, ORDERS = 20_000, 1_000
WORKERS: Final = 2
BATCH: Final = 2_000
SWEEPS: Final = 3
LENGTH: Final = 200
NOW_MS: Final = 1_800_000_000_000
CATEGORY: Final = "c0"
KEYS: Final = {
    "popular": "rec:popular",
    "popular_category": f"rec:popular:{CATEGORY}",
    "trending": "trending",
    "trending_category": f"trending:{CATEGORY}",
}
Ranks = dict[str, int | None]
Lists = dict[str, list[str]]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks of the item `before` and `after`, the people counted for it, and the places `moved` in all lists."""

    before: Ranks
    after: Ranks
    people: float
    moved: int


class AbuseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The same clicks by one account and by a hundred, and one click of each of a hundred people."""

    one_account: CaseResult
    hundred_accounts: CaseResult
    hundred_people: CaseResult

    @property
    def missed_aims(self) -> Iterator[str]:
        if self.one_account.moved:
            yield f"one account moves nothing: {self.one_account.moved} places moved"
        if self.hundred_accounts.people > self.hundred_people.people:
            yield f"100 accounts count as 100 people at most: {self.hundred_accounts.people} people"


class Worker:
    """What one browsing worker does for the lists of the shop: fold, count people, merge; once a second, write."""

    def __init__(self, settings: Settings, client: RedisClient, number: int) -> None:
        self._clicks, self._orders, self._offset = f"clicks/{number}", f"orders/{number}", 0
        self._merged: MergedOffsets = {}
        self._stores = open_stores(settings, [LIST], client)
        catalogue = Catalogue(Encoder(FeatureSet(())), ITEMS)
        for item in range(ITEMS):
            catalogue.put(make_product(item))
        self.popularity = Popularity(
            catalogue, settings.lists.purchase_value, self._stores.people, settings.lists.trending_half_life_s * 1000
        )
        self._catalogue = catalogue
        self._lists = SharedLists(
            settings=settings,
            answer_cache=self._stores.answer_cache,
            catalogue=catalogue,
            popularity=self.popularity,
        )
        self._lists.share = ItemShare(frozenset({number}), WORKERS)

    @property
    def people(self) -> RedisPeopleStore:
        return self._stores.people

    def process(self, events: Sequence[Event]) -> None:
        for begin in range(0, len(events), BATCH):
            batch = events[begin : begin + BATCH]
            arrivals = [
                Arrival(self._clicks if isinstance(event, Click) else self._orders, offset, event)
                for offset, event in enumerate(batch, self._offset)
            ]
            self._offset += len(batch)
            updates = to_updates(arrivals)
            writes = fold(self._stores.profiles.read(updates.entities), updates).slice_writes()
            self._stores.people.add(updates)
            after = {bucket: {arrival.source: self._offset for arrival in arrivals} for bucket in writes.buckets()}
            self._stores.profiles.merge(writes, self._merged, after)
            for bucket, offsets in after.items():
                self._merged.setdefault(bucket, {}).update(offsets)

    def write_lists(self) -> None:
        self.popularity.sweep(self._stores.profiles, NOW_MS)
        self.popularity.rank()
        self._lists.write(NOW_MS)


class AbusedShop:
    """A shop after its day, with an empty Redis before it."""

    def __init__(self, server: RedisServer, seed: int) -> None:
        server.flush()
        redis = RedisSettings(url=server.url)
        settings = Settings().model_copy(update={"redis": redis, "lists": ListSettings(length=LENGTH)})
        self._client = connect(redis)
        self._workers = [Worker(settings, self._client, number) for number in range(WORKERS)]
        self._rng = np.random.default_rng(seed)
        self.send(list(self._draw_day()))

    def close(self) -> None:
        self._client.close()

    def send(self, events: Sequence[Event]) -> None:
        """Each worker gets the events of its users, and all write their lists."""
        for number, worker in enumerate(self._workers):
            worker.process([event for event in events if hash_text(user_of(event)) % WORKERS == number])
        for _ in range(SWEEPS):
            for worker in self._workers:
                worker.write_lists()

    def count_people(self, item: str) -> float:
        samples = self._workers[0].people.read(0, [item])
        return round(float(samples.weigh(NOW_MS, 1_000 * DAY_MS)[0]), 1)

    def read_lists(self) -> Lists:
        values = self._client.pipeline([("GET", f"shop:{key}") for key in KEYS.values()])
        return {name: read_items(value) for name, value in zip(KEYS, values, strict=True)}

    def _draw_day(self) -> Iterator[Event]:
        popular = self._rng.random(CLICKS + ORDERS) < 0.5
        item = np.where(
            popular,
            self._rng.integers(0, ITEMS // 10, len(popular)),
            self._rng.integers(ITEMS // 10, ITEMS - CATEGORIES, len(popular)),
        )
        user, age = self._rng.integers(0, PEOPLE, len(item)), self._rng.integers(HOUR_MS, DAY_MS, len(item))
        for n in np.argsort(-age).tolist():
            ident, person, ts_ms = f"e{n}", f"u{user[n]}", NOW_MS - int(age[n])
            if n < CLICKS:
                yield Click(event_id=ident, ts_ms=ts_ms, user_id=person, item_id=f"i{item[n]}")
            else:
                yield make_order(ident, person, f"i{item[n]}", ts_ms)


def make_product(item: int) -> Product:
    return Product(
        event_id=f"p{item}",
        ts_ms=NOW_MS - DAY_MS,
        item_id=f"i{item}",
        title="",
        price=1.0,
        currency="EUR",
        available=True,
        category=f"c{item % CATEGORIES}",
    )


def make_order(ident: str, user: str, item: str, ts_ms: int) -> Order:
    line = Line(item_id=item, quantity=1, unit_price=1.0)
    return Order(
        event_id=ident, ts_ms=ts_ms, user_id=user, lines=(line,), amount=1.0, currency="EUR", payment_method="card"
    )


def user_of(event: Event) -> str:
    return event.user_id if isinstance(event, Click | Order) else ""


def read_items(value: bytes | None) -> list[str]:
    items = msgspec.json.decode(value or b'{"items": []}')["items"]
    return [item if isinstance(item, str) else item["item_id"] for item in items]


def attack(accounts: int, clicks: int) -> list[Event]:
    """Clicks of one item, in turn by all accounts, within the last hour."""
    count = accounts * clicks
    return [
        Click(event_id=f"a{n}", ts_ms=NOW_MS - n * HOUR_MS // count, user_id=f"bot{n % accounts}", item_id=TARGET)
        for n in reversed(range(count))
    ]


TARGET: Final = f"i{ITEMS - CATEGORIES}"  # of the category c0, and outside of the day's clicks


def measure(server: RedisServer, seed: int, accounts: int, clicks: int) -> CaseResult:
    """The item has one visitor in the beginning: the first account."""
    shop = AbusedShop(server, seed)
    shop.send(attack(accounts=1, clicks=1))
    before = shop.read_lists()
    shop.send(attack(accounts, clicks))
    after, people = shop.read_lists(), shop.count_people(TARGET)
    shop.close()
    moved = sum(a != b for name in KEYS for a, b in zip(before[name], after[name], strict=False))
    result = CaseResult(before=rank(before), after=rank(after), people=people, moved=moved)
    print_progress(f"{accounts} accounts, {clicks} clicks each: {result}")
    return result


def rank(lists: Mapping[str, list[str]]) -> Ranks:
    return {name: items.index(TARGET) + 1 if TARGET in items else None for name, items in lists.items()}


def main(argv: Sequence[str]) -> int:
    """0: the aims are met; 1: they are not."""
    arguments = parse(argv)
    with RedisServer() as server:
        figures = AbuseFigures(
            one_account=measure(server, arguments.seed, accounts=1, clicks=10_000),
            hundred_accounts=measure(server, arguments.seed, accounts=100, clicks=100),
            hundred_people=measure(server, arguments.seed, accounts=100, clicks=1),
        )
    is_missed = print_missed(figures.missed_aims)
    print_result(figures, as_json=arguments.json)
    return int(is_missed)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench abuse-of-lists", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON, the last one")
    parser.add_argument("--seed", type=int, default=20111209)
    return parser.parse_args(argv)
