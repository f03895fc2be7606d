"""Popular and trending items count people, with decay in event time; events of before they were counted come after."""

from collections.abc import Sequence

import pytest

from contract.events.model import Event, Order
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.units import DAY_MS, HOUR_MS
from tests.worker.events import FEATURES, NOW_MS, make_click, make_order, make_product
from worker.catalogue.catalogue import Catalogue
from worker.people.samples import InMemoryPeopleStore
from worker.retrieval.popularity import Popularity

ITEMS = ("a", "b", "c", "d")


class VisitedShop:
    """Items a and b in the category shoes, c and d in none; with the popularity of its visits."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(Encoder(FEATURES))
        for item in ITEMS:
            self.catalogue.put(make_product(item, category="shoes" if item in "ab" else None))
        self.profiles, self.people = InMemoryProfileStore(), InMemoryPeopleStore()
        self.popularity = Popularity(self.catalogue, 5.0, self.people, 6 * HOUR_MS)
        self._offset = 0

    def visit(self, *events: Event, counts_people: bool = True) -> None:
        arrivals = list[Arrival]()
        for event in events:
            self._offset += 1
            arrivals.append(Arrival("orders/0" if isinstance(event, Order) else "clicks/0", self._offset, event))
        updates = to_updates(arrivals)
        self.profiles.slices |= fold(self.profiles.read(updates.entities), updates).slice_writes().to_mapping()
        if counts_people:
            self.people.add(updates)

    def rank(self, now_ms: int = NOW_MS) -> Popularity:
        self.popularity.sweep(self.profiles, now_ms)
        self.popularity.rank()
        return self.popularity

    def name(self, numbers: Sequence[int]) -> list[str]:
        return [ITEMS[number] for number in numbers if number >= 0]


@pytest.fixture
def shop() -> VisitedShop:
    return VisitedShop()


def click(item: str, user: str, ts_ms: int = NOW_MS) -> Event:
    return make_click(f"{item}{user}{ts_ms}", item, user=user, ts_ms=ts_ms)


def test_a_bot_moves_neither_popular_nor_trending_items(shop: VisitedShop) -> None:
    # given three, two and one people
    shop.visit(*[click("abc"[n % 3], f"u{n}") for n in (0, 3, 6, 1, 4, 2)])
    before = shop.rank()
    expected = before.top.tolist(), before.rank_trending().top.tolist()
    assert shop.name(expected[0]) == shop.name(expected[1]) == ["a", "b", "c"]
    # when one of them clicks an item again and again
    for n in range(20):
        shop.visit(*[click("c", "u2", NOW_MS - n * 500 - i) for i in range(500)])
    # then
    after = shop.rank()
    assert (after.top.tolist(), after.rank_trending().top.tolist()) == expected
    assert after.count_people(shop.catalogue.find(["c"])).round(6) == [1.0]


def test_trending_items_are_those_of_now_and_popular_ones_those_of_days(shop: VisitedShop) -> None:
    shop.visit(*[click("a", f"u{n}", NOW_MS - DAY_MS) for n in range(10)], *[click("b", f"v{n}") for n in range(4)])

    popularity = shop.rank()

    assert shop.name(popularity.top.tolist()) == ["a", "b"]
    assert shop.name(popularity.rank_trending().top.tolist()) == ["b", "a"]
    shoes = shop.catalogue.categories.encode("shoes")
    assert shop.name(popularity.rank_trending().in_category[shoes].tolist()) == ["b", "a"]


def test_a_buyer_counts_with_the_purchase_value_among_popular_items_and_once_among_trending_ones(
    shop: VisitedShop,
) -> None:
    shop.visit(*[click("a", f"u{n}") for n in range(4)], click("b", "v"), make_order("o1", "b", user="v"))

    popularity = shop.rank()

    assert shop.name(popularity.top.tolist()) == ["b", "a"]
    assert shop.name(popularity.rank_trending().top.tolist()) == ["a", "b"]


def test_the_order_of_trending_items_does_not_depend_on_when_each_was_swept(
    shop: VisitedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given sweeps of one item, twelve hours apart
    monkeypatch.setattr("worker.retrieval.popularity.SWEEP_MIN", 1)
    shop.visit(*[click("a", f"u{n}") for n in range(3)], *[click("b", f"u{n}") for n in range(2)])
    # when
    for hours in (0, 12, 24, 36):
        popularity = shop.rank(NOW_MS + hours * HOUR_MS)
    # then
    assert shop.name(popularity.rank_trending().top.tolist()) == ["a", "b"]


def test_what_nobody_visits_any_more_does_not_trend(shop: VisitedShop) -> None:
    shop.visit(click("a", "u", NOW_MS - 4 * DAY_MS), click("b", "u"))
    shop.catalogue.put(make_product("b", stock=0))
    popularity = shop.rank()
    assert shop.name(popularity.rank_trending().top.tolist()) == []
    assert shop.name(popularity.top.tolist()) == ["a"]


def test_events_of_before_people_were_counted_rank_below_those_with_people(shop: VisitedShop) -> None:
    # given a history of many events, and one visit since
    shop.visit(*[click(item, f"u{n}") for n in range(40) for item in "aab"[: 1 + n % 3]], counts_people=False)
    shop.visit(click("d", "u"))

    assert shop.name(shop.rank().top.tolist()) == ["d", "a", "b"]
