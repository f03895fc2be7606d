"""Popularity: what item profiles say of clicks and orders, looked at by the clock."""

import pytest

from contract.encoding import Encoder
from contract.events import Click, Event, Order
from contract.memory import MemoryProfiles, fold
from contract.touches import columns
from tests.worker.shop import FEATURES, NOW_MS, arrivals, click, order, product
from worker.catalogue import Catalogue
from worker.popularity import Popularity

ITEMS = ("a", "b", "c", "d")
DAY_MS = 86_400_000


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue(Encoder(FEATURES))
    for item in ITEMS:
        made.put(product(item, category="shoes" if item in "ab" else None))
    return made


def remembered(*events: Event) -> MemoryProfiles:
    """Profiles that hold these clicks and orders."""
    profiles = MemoryProfiles()
    clicks, orders = ([e for e in events if isinstance(e, kind)] for kind in (Click, Order))
    touches = columns([*arrivals(*clicks, topic="shop.clicks"), *arrivals(*orders)])
    for entity, slices in fold([{} for _ in touches.entities], touches).writes().items():
        profiles.slices[entity] = dict(slices)
    return profiles


def looked(catalogue: Catalogue, profiles: MemoryProfiles, now_ms: int = NOW_MS) -> Popularity:
    popularity = Popularity(catalogue, purchase_value=5.0)
    popularity.look(profiles, now_ms)
    popularity.rank()
    return popularity


def top(popularity: Popularity, catalogue: Catalogue) -> list[str]:
    return catalogue.names(popularity.top)


def test_what_is_clicked_more_is_more_popular_and_ties_go_by_number(catalogue: Catalogue) -> None:
    profiles = remembered(*(click(f"c{n}", item) for n, item in enumerate(["b", "c", "a", "c"])))

    assert top(looked(catalogue, profiles), catalogue) == ["c", "a", "b"]


def test_an_order_counts_as_much_as_a_purchase_is_worth(catalogue: Catalogue) -> None:
    profiles = remembered(*(click(f"c{n}", "a") for n in range(4)), order("o", "b"))

    assert top(looked(catalogue, profiles), catalogue) == ["b", "a"]


def test_yesterday_s_clicks_count_less_and_last_week_s_less_still(catalogue: Catalogue) -> None:
    days = {"a": 0, "b": 3, "c": 20}
    profiles = remembered(
        *(
            click(f"{item}{n}", item, ts_ms=NOW_MS - day * DAY_MS, user=f"u{n}")
            for item, day in sorted(days.items(), key=lambda one: -one[1])
            for n in range(2)
        )
    )

    assert top(looked(catalogue, profiles), catalogue) == ["a", "b", "c"]


def test_popular_items_stand_in_their_categories_too_and_what_is_sold_out_in_none(catalogue: Catalogue) -> None:
    # given
    profiles = remembered(*(click(f"c{n}", item) for n, item in enumerate(["a", "b", "b", "c"])))
    popularity = looked(catalogue, profiles)
    shoes = catalogue.categories.code("shoes")
    assert catalogue.names(popularity.by_category[shoes]) == ["b", "a"]
    # when
    catalogue.put(product("b", stock=0, category="shoes"))
    popularity.rank()
    # then
    assert top(popularity, catalogue) == ["a", "c"]
    assert catalogue.names(popularity.by_category[shoes]) == ["a"]


def test_items_popular_elsewhere_stand_behind_every_one_of_our_own(catalogue: Catalogue) -> None:
    popularity = looked(catalogue, remembered(click("c", "d")))

    popularity.begin_with(catalogue.find(["c", "gone", "d", "a"]))
    popularity.rank()

    assert top(popularity, catalogue) == ["d", "c", "a"]


def test_one_look_asks_for_the_touched_items_first_and_for_all_in_time(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a look at two items at a time
    monkeypatch.setattr("worker.popularity.SWEEP_LEAST", 2)
    profiles = remembered(*(click(f"c{n}", item) for n, item in enumerate(ITEMS)))
    popularity = Popularity(catalogue, 5.0)
    popularity.touch(catalogue.find(["d", "unheard of"]))
    # when
    seen = []
    for _ in range(3):
        popularity.look(profiles, NOW_MS)
        popularity.rank()
        seen.append(sorted(top(popularity, catalogue)))
    # then
    assert seen == [["a", "d"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_an_empty_catalogue_has_nothing_popular() -> None:
    assert len(looked(Catalogue(Encoder(FEATURES)), MemoryProfiles()).top) == 0
