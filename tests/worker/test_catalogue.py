"""The catalogue and what is popular in it."""

from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.encoding import Encoder, UnknownItem
from contract.features import Block
from contract.hashing import hash_id
from tests.worker.bundles import publish_tiny
from tests.worker.shop import FEATURES, NOW_MS, product
from worker.catalogue import HALF_LIFE_MS, POPULAR, Catalogue, Popularity
from worker.runtime import Model

DAY_MS = 86_400_000


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Encoder(FEATURES))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    publish_tiny(tmp_path, "v1")
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


def same(one: Block, other: Block) -> bool:
    return one.numbers.tobytes() == other.numbers.tobytes() and one.ids.tobytes() == other.ids.tobytes()


def prices(block: Block) -> list[float]:
    at = [feature.name for feature in FEATURES.numbers("item")].index("item_price")
    return [float(price) for price in block.numbers[:, at]]


def test_items_are_encoded_alike_however_the_catalogue_grew(catalogue: Catalogue) -> None:
    # given products that come one by one, and are asked for while they come
    products = [product(f"i{n}", price=n, category=f"c{n % 3}") for n in range(70)]
    for n, one in enumerate(products):
        catalogue.put(one)
        assert prices(catalogue.block([one.item_id])) == [n]
    # then
    assert len(catalogue) == 70
    assert same(catalogue.block([p.item_id for p in products]), Encoder(FEATURES).items(products))


def test_the_newest_record_of_a_product_counts(catalogue: Catalogue, model: Model) -> None:
    # given an item that has been asked for
    catalogue.serve(model)
    catalogue.put(product("i", price=3))
    assert (prices(catalogue.block(["i"])), catalogue.parts(["i"]).tolist()) == ([3], [[3]])
    # when
    catalogue.put(product("i", price=5))
    # then
    assert (prices(catalogue.block(["i"])), catalogue.parts(["i"]).tolist()) == ([5], [[5]])
    assert len(catalogue) == 1


def test_of_an_item_that_no_product_describes_only_the_id_is_known(catalogue: Catalogue, model: Model) -> None:
    # given
    catalogue.serve(model)
    catalogue.put(product("i", price=3))
    # when
    block, parts = catalogue.block(["ghost", "i"]), catalogue.parts(["ghost", "i"])
    # then
    assert same(block, Encoder(FEATURES).items([UnknownItem("ghost"), product("i", price=3)]))
    assert parts.tolist() == [[0], [3]]
    assert not catalogue.available("ghost")


def test_parts_are_those_of_the_model_that_serves(catalogue: Catalogue, model: Model, tmp_path: Path) -> None:
    # given parts of one model for a catalogue that goes on growing
    catalogue.serve(model)
    for n in range(5):
        catalogue.put(product(f"i{n}", price=n))
        assert catalogue.parts([f"i{n}"]).tolist() == [[n]]
    # when the model goes, and another one comes
    catalogue.serve(None)
    catalogue.put(product("i0", price=9))
    publish_tiny(tmp_path, "v2")
    catalogue.serve(Model(read_bundle(tmp_path, "v2"), FEATURES))
    # then
    assert catalogue.parts([f"i{n}" for n in range(5)]).tolist() == [[9], [1], [2], [3], [4]]


def test_nothing_is_known_of_an_empty_catalogue(catalogue: Catalogue, model: Model) -> None:
    catalogue.serve(model)

    assert len(catalogue.block([])) == 0
    assert catalogue.parts(["ghost"]).shape == (1, 1)


def test_an_item_that_was_taken_off_the_topic_stays_readable_and_is_not_for_sale(catalogue: Catalogue) -> None:
    # given
    catalogue.put(product("i", price=3))
    # when
    catalogue.delist("i")
    catalogue.delist("never heard of")
    # then
    assert not catalogue.available("i")
    assert prices(catalogue.block(["i"])) == [3]


def test_items_are_found_again_by_the_ids_that_profiles_remember(catalogue: Catalogue) -> None:
    # given
    catalogue.put(product("a"))
    catalogue.put(product("b"))
    # then
    assert catalogue.seen([hash_id("item:b"), hash_id("item:gone"), 0, hash_id("item:a")]) == ["b", "a"]


def test_what_is_clicked_more_is_more_popular_and_ties_go_by_name() -> None:
    # given
    popularity = Popularity()
    for item in ("b", "c", "a", "c"):
        popularity.note(item, NOW_MS, 1.0)
    # then
    assert popularity.top() == ["c", "a", "b"]


def test_a_click_counts_half_after_a_day() -> None:
    # given
    popularity = Popularity()
    popularity.note("old", NOW_MS, 2.1)
    popularity.note("older", NOW_MS, 1.9)
    # when
    popularity.note("new", NOW_MS + HALF_LIFE_MS, 1.0)
    # then
    assert popularity.top() == ["old", "new", "older"]


def test_items_popular_elsewhere_stand_behind_every_one_of_our_own() -> None:
    # given
    popularity = Popularity()
    popularity.note("own", NOW_MS, 1.0)
    # when
    popularity.begin_with(["first", "own", "second"])
    # then
    assert popularity.top() == ["own", "first", "second"]


@pytest.mark.parametrize("years", [-50, 0, 1, 2, 100])
def test_popularity_stays_finite_and_bounded_whatever_time_events_claim(years: int) -> None:
    # given more items than are remembered
    popularity = Popularity()
    for n in range(50 * POPULAR):
        popularity.note(f"i{n}", NOW_MS, 1.0 + n)
    # when
    popularity.note("new", NOW_MS + years * 365 * DAY_MS, 1e9)
    # then
    assert len(popularity._weight) <= 50 * POPULAR
    assert np.isfinite(list(popularity._weight.values())).all()
    assert len(popularity.top()) == POPULAR
    if years >= 0:
        assert popularity.top()[0] == "new"


def test_popularity_goes_on_over_years() -> None:
    # given an item that is clicked each day, and one that was, ten years ago
    popularity = Popularity()
    for day in range(3_650):
        popularity.note("steady" if day else "once", NOW_MS + day * DAY_MS, 1.0)
    # then
    assert popularity.top()[0] == "steady"
    assert all(np.isfinite(weight) for weight in popularity._weight.values())
