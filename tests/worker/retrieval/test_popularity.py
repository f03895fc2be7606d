"""Popularity: what item profiles say of clicks and orders, looked at by the clock."""

import pytest

from contract.events import Click, Event, Order
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from tests.worker.events import FEATURES, NOW_MS, make_arrivals, make_click, make_order, make_product
from worker.catalogue.catalogue import Catalogue
from worker.retrieval.popularity import Popularity

ITEMS = ("a", "b", "c", "d")
DAY_MS = 86_400_000


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue(Encoder(FEATURES))
    for item in ITEMS:
        made.put(make_product(item, category="shoes" if item in "ab" else None))
    return made


def make_profiles(*events: Event) -> InMemoryProfileStore:
    """Profiles that hold these clicks and orders."""
    profiles = InMemoryProfileStore()
    clicks, orders = ([e for e in events if isinstance(e, kind)] for kind in (Click, Order))
    touches = to_updates([*make_arrivals(*clicks, topic="shop.clicks"), *make_arrivals(*orders)])
    for entity, slices in fold([{} for _ in touches.entities], touches).slice_writes().items():
        profiles.slices[entity] = dict(slices)
    return profiles


def refresh_popularity(catalogue: Catalogue, profiles: InMemoryProfileStore, now_ms: int = NOW_MS) -> Popularity:
    popularity = Popularity(catalogue, purchase_value=5.0)
    popularity.sweep(profiles, now_ms)
    popularity.rank()
    return popularity


def top_items(popularity: Popularity, catalogue: Catalogue) -> list[str]:
    return catalogue.item_ids(popularity.top)


def test_what_is_clicked_more_is_more_popular_and_ties_go_by_number(catalogue: Catalogue) -> None:
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(["b", "c", "a", "c"])))

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["c", "a", "b"]


def test_an_order_counts_as_much_as_a_purchase_is_worth(catalogue: Catalogue) -> None:
    profiles = make_profiles(*(make_click(f"c{n}", "a") for n in range(4)), make_order("o", "b"))

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["b", "a"]


def test_yesterday_s_clicks_count_less_and_last_week_s_less_still(catalogue: Catalogue) -> None:
    days = {"a": 0, "b": 3, "c": 20}
    profiles = make_profiles(
        *(
            make_click(f"{item}{n}", item, ts_ms=NOW_MS - day * DAY_MS, user=f"u{n}")
            for item, day in sorted(days.items(), key=lambda one: -one[1])
            for n in range(2)
        )
    )

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["a", "b", "c"]


def test_popular_items_stand_in_their_categories_too_and_what_is_sold_out_in_none(catalogue: Catalogue) -> None:
    # given
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(["a", "b", "b", "c"])))
    popularity = refresh_popularity(catalogue, profiles)
    shoes = catalogue.categories.encode("shoes")
    assert catalogue.item_ids(popularity.by_category[shoes]) == ["b", "a"]
    # when
    catalogue.put(make_product("b", stock=0, category="shoes"))
    popularity.rank()
    # then
    assert top_items(popularity, catalogue) == ["a", "c"]
    assert catalogue.item_ids(popularity.by_category[shoes]) == ["a"]


def test_items_popular_elsewhere_stand_behind_every_one_of_our_own(catalogue: Catalogue) -> None:
    popularity = refresh_popularity(catalogue, make_profiles(make_click("c", "d")))

    popularity.seed(catalogue.find(["c", "gone", "d", "a"]))
    popularity.rank()

    assert top_items(popularity, catalogue) == ["d", "c", "a"]


def test_one_look_asks_for_the_touched_items_first_and_for_all_in_time(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a look at two items at a time
    monkeypatch.setattr("worker.retrieval.popularity.SWEEP_MIN", 2)
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(ITEMS)))
    popularity = Popularity(catalogue, 5.0)
    popularity.mark_active(catalogue.find(["d", "unheard of"]))
    # when
    seen = []
    for _ in range(3):
        popularity.sweep(profiles, NOW_MS)
        popularity.rank()
        seen.append(sorted(top_items(popularity, catalogue)))
    # then
    assert seen == [["a", "d"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_an_empty_catalogue_has_nothing_popular() -> None:
    assert len(refresh_popularity(Catalogue(Encoder(FEATURES)), InMemoryProfileStore()).top) == 0
