"""Popularity from the clicks and orders in item profiles, which are swept in turn."""

import pytest

from contract.events.model import Click, Event, Order
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.units import DAY_MS
from tests.worker.events import FEATURES, NOW_MS, make_arrivals, make_click, make_order, make_product
from tests.worker.rules.rule_sets import compile_rules, make_rule
from worker.catalogue.catalogue import Catalogue
from worker.retrieval.popularity import PER_CATEGORY_MAX, Popularity

ITEMS = ("a", "b", "c", "d")


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue(Encoder(FEATURES))
    for item in ITEMS:
        catalogue.put(make_product(item, category="shoes" if item in "ab" else None))
    return catalogue


def make_profiles(*events: Event) -> InMemoryProfileStore:
    """Profiles with these clicks and orders."""
    profiles = InMemoryProfileStore()
    clicks, orders = ([e for e in events if isinstance(e, kind)] for kind in (Click, Order))
    updates = to_updates([*make_arrivals(*clicks, topic="shop.clicks"), *make_arrivals(*orders)])
    for entity, slices in fold([{} for _ in updates.entities], updates).slice_writes().items():
        profiles.slices[entity] = dict(slices)
    return profiles


def refresh_popularity(catalogue: Catalogue, profiles: InMemoryProfileStore, now_ms: int = NOW_MS) -> Popularity:
    popularity = Popularity(catalogue, purchase_value=5.0)
    popularity.sweep(profiles, now_ms)
    popularity.rank()
    return popularity


def top_items(popularity: Popularity, catalogue: Catalogue) -> list[str]:
    return catalogue.item_ids(popularity.top)


def top_in_category(popularity: Popularity, catalogue: Catalogue, category: str) -> list[str]:
    numbers = popularity.in_category[catalogue.categories.encode(category)]
    return catalogue.item_ids(numbers[numbers >= 0])


def test_items_rank_by_clicks_and_ties_by_number(catalogue: Catalogue) -> None:
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(["b", "c", "a", "c"])))

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["c", "a", "b"]


def test_an_order_counts_with_the_purchase_value(catalogue: Catalogue) -> None:
    profiles = make_profiles(*(make_click(f"c{n}", "a") for n in range(4)), make_order("o", "b"))

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["b", "a"]


def test_older_clicks_count_less(catalogue: Catalogue) -> None:
    days = {"a": 0, "b": 3, "c": 20}
    profiles = make_profiles(
        *(
            make_click(f"{item}{n}", item, ts_ms=NOW_MS - day * DAY_MS, user=f"u{n}")
            for item, day in sorted(days.items(), key=lambda item_days: -item_days[1])
            for n in range(2)
        )
    )

    assert top_items(refresh_popularity(catalogue, profiles), catalogue) == ["a", "b", "c"]


def test_popular_items_are_ranked_by_category_without_sold_out_ones(catalogue: Catalogue) -> None:
    # given
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(["a", "b", "b", "c"])))
    popularity = refresh_popularity(catalogue, profiles)
    assert top_in_category(popularity, catalogue, "shoes") == ["b", "a"]
    # when
    catalogue.put(make_product("b", stock=0, category="shoes"))
    popularity.rank()
    # then
    assert top_items(popularity, catalogue) == ["a", "c"]
    assert top_in_category(popularity, catalogue, "shoes") == ["a"]


def test_popular_items_of_the_bundle_rank_below_clicked_ones(catalogue: Catalogue) -> None:
    popularity = refresh_popularity(catalogue, make_profiles(make_click("c", "d")))

    popularity.seed(catalogue.find(["c", "gone", "d", "a"]))
    popularity.rank()

    assert top_items(popularity, catalogue) == ["d", "c", "a"]


def test_a_sweep_starts_with_active_items_and_covers_all_in_turn(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given sweeps of two items
    monkeypatch.setattr("worker.retrieval.popularity.SWEEP_MIN", 2)
    profiles = make_profiles(*(make_click(f"c{n}", item) for n, item in enumerate(ITEMS)))
    popularity = Popularity(catalogue, 5.0)
    popularity.mark_active(catalogue.find(["d", "unknown"]))
    # when
    ranked = []
    for _ in range(3):
        popularity.sweep(profiles, NOW_MS)
        popularity.rank()
        ranked.append(sorted(top_items(popularity, catalogue)))
    # then
    assert ranked == [["a", "d"], ["a", "b", "c", "d"], ["a", "b", "c", "d"]]


def test_an_empty_catalogue_has_no_popular_items() -> None:
    assert len(refresh_popularity(Catalogue(Encoder(FEATURES)), InMemoryProfileStore()).top) == 0


def test_what_rules_exclude_takes_no_place_among_the_popular_items_of_a_category() -> None:
    # given more items of a category than are kept, of which rules exclude the most popular ones
    catalogue = Catalogue(Encoder(FEATURES))
    items = [f"i{n}" for n in range(PER_CATEGORY_MAX + 5)]
    for item in items:
        catalogue.put(make_product(item, category="mugs"))
    popularity = Popularity(catalogue, 5.0)
    popularity.seed(catalogue.find(items))
    rules = compile_rules(catalogue, make_rule("exclude", items=items[:PER_CATEGORY_MAX]))
    # when
    popularity.rank(rules)
    # then
    left = catalogue.find(items[PER_CATEGORY_MAX:])
    assert popularity.in_category[1, : len(left) + 1].tolist() == [*left.tolist(), -1]
    assert popularity.top.tolist() == left.tolist()
