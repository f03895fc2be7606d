"""The catalogue: attributes and embeddings of every item, by item number."""

import logging
from pathlib import Path

import numpy as np
import pytest

from contract.bundle import read_bundle
from contract.features.declaration import Block
from contract.features.encoder import Encoder, UnknownItem
from contract.hashing import item_hash
from testkit.environment.tiny_bundle import publish_tiny
from testkit.metrics import read_metric
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.ops import metrics


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(Encoder(FEATURES))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    publish_tiny(tmp_path, "v1")
    return Model(read_bundle(tmp_path, "v1"), FEATURES)


def are_equal(left: Block, right: Block) -> bool:
    return left.numbers.tobytes() == right.numbers.tobytes() and left.ids.tobytes() == right.ids.tobytes()


def read_prices(block: Block) -> list[float]:
    column = [feature.name for feature in FEATURES.numbers("item")].index("item_price")
    return [float(price) for price in block.numbers[:, column]]


def test_items_are_encoded_the_same_however_the_catalogue_grew(catalogue: Catalogue) -> None:
    # given products that arrive one by one, and are read in between
    products = [make_product(f"i{n}", price=n, category=f"c{n % 3}") for n in range(70)]
    for n, product in enumerate(products):
        catalogue.put(product)
        assert read_prices(catalogue.item_block([product.item_id])) == [n]
    # then
    assert len(catalogue) == 70
    assert are_equal(catalogue.item_block([p.item_id for p in products]), Encoder(FEATURES).encode_items(products))


def test_the_newest_record_of_a_product_counts(catalogue: Catalogue, model: Model) -> None:
    # given an item that has been read
    catalogue.activate(model)
    catalogue.put(make_product("i", price=3))
    assert (read_prices(catalogue.item_block(["i"])), catalogue.item_embeddings(["i"]).tolist()) == ([3], [[3]])
    # when
    catalogue.put(make_product("i", price=5))
    # then
    assert (read_prices(catalogue.item_block(["i"])), catalogue.item_embeddings(["i"]).tolist()) == ([5], [[5]])
    assert len(catalogue) == 1


def test_an_unknown_item_has_only_its_id(catalogue: Catalogue, model: Model) -> None:
    # given
    catalogue.activate(model)
    catalogue.put(make_product("i", price=3))
    # when
    block, embeddings = catalogue.item_block(["ghost", "i"]), catalogue.item_embeddings(["ghost", "i"])
    # then
    assert are_equal(block, Encoder(FEATURES).encode_items([UnknownItem("ghost"), make_product("i", price=3)]))
    assert embeddings.tolist() == [[0], [3]]
    assert not catalogue.is_available("ghost")


def test_embeddings_are_those_of_the_serving_model(catalogue: Catalogue, model: Model, tmp_path: Path) -> None:
    # given embeddings of one model for a growing catalogue
    catalogue.activate(model)
    for n in range(5):
        catalogue.put(make_product(f"i{n}", price=n))
        assert catalogue.item_embeddings([f"i{n}"]).tolist() == [[n]]
    # when the model is removed, and another one is activated
    catalogue.activate(None)
    catalogue.put(make_product("i0", price=9))
    publish_tiny(tmp_path, "v2")
    catalogue.activate(Model(read_bundle(tmp_path, "v2"), FEATURES))
    # then
    assert catalogue.item_embeddings([f"i{n}" for n in range(5)]).tolist() == [[9], [1], [2], [3], [4]]


def test_an_empty_catalogue_returns_empty_blocks(catalogue: Catalogue, model: Model) -> None:
    catalogue.activate(model)

    assert len(catalogue.item_block([])) == 0
    assert catalogue.item_embeddings(["ghost"]).shape == (1, 1)


def test_a_delisted_item_stays_readable_and_is_unavailable(catalogue: Catalogue) -> None:
    # given
    catalogue.put(make_product("i", price=3))
    # when
    catalogue.delist("i")
    catalogue.delist("unknown")
    # then
    assert not catalogue.is_available("i")
    assert read_prices(catalogue.item_block(["i"])) == [3]


def test_items_are_found_by_the_hashes_in_profiles(catalogue: Catalogue) -> None:
    # given
    catalogue.put(make_product("a"))
    catalogue.put(make_product("b"))
    # when
    actual = catalogue.find_hashes(np.array([[item_hash("b"), item_hash("gone")], [0, item_hash("a")]], np.uint64))
    # then
    assert actual.tolist() == [[1, -1], [-1, 0]]
    assert catalogue.item_ids(catalogue.find(["b", "a"])) == ["b", "a"]


def test_item_attributes_are_stored_in_columns(catalogue: Catalogue) -> None:
    # when
    catalogue.put(make_product("a", price=3, category="shoes"))
    catalogue.put(make_product("b", available=False))
    catalogue.put(make_product("c", stock=0, category="shoes"))
    # then
    assert [catalogue.categories.words[code] for code in catalogue.category[:3]] == ["shoes", "", "shoes"]
    assert catalogue.in_stock[:3].tolist() == [True, False, False]
    assert catalogue.price[0] == 3
    assert (catalogue.first_seen_ms[:3] == NOW_MS).all()


def test_a_full_catalogue_counts_new_items_and_logs_once(caplog: pytest.LogCaptureFixture) -> None:
    # given
    catalogue = Catalogue(Encoder(FEATURES), items_max=2)
    rejected = read_metric(metrics.BAD_PRODUCTS, "beyond_items_max")
    # when
    with caplog.at_level(logging.ERROR):
        for item in ("a", "b", "c", "d", "a"):
            catalogue.put(make_product(item, price=7))
    # then
    assert len(catalogue) == 2
    assert read_prices(catalogue.item_block(["a", "b"])) == [7, 7]
    assert [catalogue.is_available(item) for item in "abcd"] == [True, True, False, False]
    assert read_metric(metrics.BAD_PRODUCTS, "beyond_items_max") - rejected == 2
    (message,) = caplog.messages
    assert "`worker.items_max` should be at least the number of items. Found 2" in message


def test_the_next_model_is_prepared_in_chunks_while_the_present_one_serves(
    catalogue: Catalogue, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given ten items in chunks of four, and a next model with other embeddings
    monkeypatch.setattr("worker.catalogue.item_embeddings.ITEMS_PER_RUN", 4)
    for n in range(10):
        catalogue.put(make_product(f"i{n}", price=n))
    catalogue.activate(model)
    publish_tiny(tmp_path, "v2")
    next_model = Model(read_bundle(tmp_path, "v2"), FEATURES)
    monkeypatch.setattr(next_model, "item_part", lambda block: -model.item_part(block))
    # when items change during the preparation: a computed one, one still to be computed, and a new one
    assert not catalogue.prepare(next_model)
    catalogue.put(make_product("i1", price=50))
    catalogue.put(make_product("i9", price=60))
    catalogue.put(make_product("i10", price=70))
    items = [f"i{n}" for n in range(11)]
    assert catalogue.item_embeddings(items).tolist() == [[0], [50], *([n] for n in range(2, 9)), [60], [70]]
    assert [catalogue.prepare(next_model) for _ in range(3)] == [False, False, True]
    # then
    catalogue.activate(next_model)
    assert catalogue.item_embeddings(items).tolist() == [[0], [-50], *([-n] for n in range(2, 9)), [-60], [-70]]


def test_the_serving_model_is_not_run_again_on_activation(
    catalogue: Catalogue, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    catalogue.put(make_product("i", price=3))
    catalogue.activate(model)
    monkeypatch.setattr(model, "item_part", lambda _: pytest.fail("The model should not run again."))
    # when
    catalogue.activate(model)
    # then
    assert catalogue.item_embeddings(["i"]).tolist() == [[3]]
