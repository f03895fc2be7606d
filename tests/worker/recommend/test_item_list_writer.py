"""Lists of items in Redis: what is on them and why, when each is written again, and what is left out or deleted."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contract.bundle import Bundle
from contract.errors import BadBundle, Unavailable
from contract.features.encoder import Encoder
from contract.messages import ShopList
from contract.settings.worker import ListSettings
from testkit.environment.tiny_bundle import ITEMS, make_golden, make_manifest, pack_npz, tiny_files
from testkit.environment.tiny_next_item import (
    VECTORS,
    make_next_item_golden,
    make_sequence,
    make_vectors,
    next_item_files,
)
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.recommend import item_list_writer
from worker.recommend.item_list_writer import ItemListWriter
from worker.recommend.item_share import WHOLE, ItemShare
from worker.redis.client import RedisClient
from worker.rules.list_rules import ListRules
from worker.rules.rule_file import RuleFile
from worker.state.answer_cache import AnswerCache

Lists = dict[str, list[tuple[str, str]]]


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def make_together(pairs: Mapping[str, Mapping[str, float]]) -> bytes:
    """together.npz of the tiny bundle's items: the strengths of each item's others."""
    rows, weights = np.full((len(ITEMS), 2), -1, np.int32), np.zeros((len(ITEMS), 2), np.float32)
    for item, others in pairs.items():
        for place, (other, weight) in enumerate(others.items()):
            rows[ITEMS.index(item), place], weights[ITEMS.index(item), place] = ITEMS.index(other), weight
    return pack_npz({"items": np.array([item.encode() for item in ITEMS]), "neighbours": rows, "weights": weights})


def load(version: str = "v1", files: Mapping[str, bytes] | None = None, **together: Mapping[str, float]) -> Model:
    return Model(
        Bundle(make_manifest(version), {**(files or tiny_files()), "together.npz": make_together(together)}), FEATURES
    )


class Harness:
    """A catalogue of the tiny bundle's items, and the writer of their lists."""

    def __init__(self, client: RedisClient, budget_ms: int = 500, **more: Any) -> None:
        self.client, self.catalogue = client, Catalogue(Encoder(FEATURES))
        for item in ITEMS:
            self.catalogue.put(make_product(item))
        self.cache = AnswerCache(client=client, prefix="shop:", lists=ListSettings(ttl_s=60))
        self.writer = self.open_writer(budget_ms, **more)

    def open_writer(self, budget_ms: int = 500, **more: Any) -> ItemListWriter:
        return ItemListWriter(answer_cache=self.cache, catalogue=self.catalogue, length=3, budget_ms=budget_ms, **more)

    def write(self, share: ItemShare = WHOLE) -> Lists:
        self.writer.write(NOW_MS, share)
        return self.read()

    def read(self) -> Lists:
        keys = sorted(
            key for kind in ("similar", "together") for page in self.client.scan(f"shop:{kind}:") for key in page
        )
        values = self.client.pipeline([("GET", key) for key in keys])
        lists = [msgspec.json.decode(value, type=ShopList) for value in values]
        return {
            key.removeprefix("shop:"): [(item.item_id, item.why) for item in own.items]
            for key, own in zip(keys, lists, strict=True)
        }


def test_similar_items_are_neighbours_where_the_bundle_has_no_vectors(client: RedisClient) -> None:
    harness = Harness(client)
    harness.writer.activate(load())

    assert harness.write()["similar:i0"] == [("i1", "neighbour"), ("i2", "neighbour")]
    value, ttl = client.pipeline([("GET", "shop:similar:i3"), ("TTL", "shop:similar:i3")])
    similar = msgspec.json.decode(value, type=ShopList)
    assert (similar.model_version, similar.computed_ms) == ("v1", NOW_MS)
    assert [item.score for item in similar.items] == sorted((item.score for item in similar.items), reverse=True)
    assert 0 < ttl <= 60


def test_an_item_that_neighbours_and_vectors_name_comes_first(client: RedisClient) -> None:
    # given neighbours i1 and i2 of i0, and i2 nearest to it by vector
    vectors = VECTORS.copy()
    vectors[1], vectors[2] = [-0.6, 0.8, 0, 0], [0.8, 0, 0.6, 0]
    files = next_item_files() | {
        "sequence.onnx": make_sequence(vectors),
        "vectors.npz": pack_npz(make_vectors(vectors)),
    }
    golden = make_next_item_golden(vectors)
    files["golden.npz"] = pack_npz(make_golden(100.0) | golden)
    harness = Harness(client)
    harness.writer.activate(load(files=files))

    first, *others = harness.write()["similar:i0"]

    assert first == ("i2", "vector")
    assert ("i1", "neighbour") in others


def test_items_bought_together_come_by_strength_and_only_where_the_bundle_knows_some(client: RedisClient) -> None:
    harness = Harness(client)
    harness.writer.activate(load(i0={"i1": 0.2, "i3": 0.7}))

    lists = harness.write()

    assert lists["together:i0"] == [("i3", "together"), ("i1", "together")]
    assert "together:i1" not in lists


def test_a_list_never_has_the_item_itself_or_one_out_of_stock_but_a_sold_out_item_has_its_list(
    client: RedisClient,
) -> None:
    harness = Harness(client)
    harness.catalogue.put(make_product("i1", stock=0))
    harness.writer.activate(load(i0={"i0": 0.9, "i1": 0.8}))

    lists = harness.write()

    assert lists["similar:i0"] == [("i2", "neighbour")]
    assert lists["similar:i1"] == [("i2", "neighbour"), ("i3", "neighbour")]
    assert "together:i0" not in lists


def test_an_item_that_is_sold_out_leaves_lists_at_once_and_returns_to_them(client: RedisClient) -> None:
    # given
    harness = Harness(client)
    harness.writer.activate(load())
    harness.write()
    # when
    harness.catalogue.put(make_product("i1", stock=0))
    # then
    assert harness.write()["similar:i0"] == [("i2", "neighbour")]
    # when
    harness.catalogue.put(make_product("i1"))
    # then it is back within a cycle
    for _ in range(len(ITEMS)):
        lists = harness.write()
    assert lists["similar:i0"] == [("i1", "neighbour"), ("i2", "neighbour")]


def test_a_removed_item_has_no_lists_and_is_on_none(client: RedisClient) -> None:
    # given
    harness = Harness(client)
    harness.writer.activate(load(i1={"i2": 0.5}))
    assert {"similar:i1", "together:i1"} <= set(harness.write())
    # when
    harness.catalogue.delist("i1")
    lists = harness.write()
    # then
    assert not {"similar:i1", "together:i1"} & set(lists)
    assert "i1" not in {item for own in lists.values() for item, _ in own}
    # and it has them again when it is listed again
    harness.catalogue.put(make_product("i1"))
    assert {"similar:i1", "together:i1"} <= set(harness.write())


def test_a_worker_deletes_the_lists_of_an_item_that_was_removed_while_none_ran(client: RedisClient) -> None:
    client.pipeline([("SET", "shop:similar:gone%3A1", "{}"), ("SET", "shop:together:gone%3A1", "{}")])
    harness = Harness(client)

    harness.catalogue.delist("gone:1")

    assert harness.write() == {}


def test_an_unreadable_record_suspends_an_item_and_removes_none_of_its_lists(client: RedisClient) -> None:
    harness = Harness(client)
    harness.writer.activate(load())
    harness.write()

    harness.catalogue.suspend("i1")

    assert {"similar:i1"} <= set(harness.write())
    assert harness.write()["similar:i0"] == [("i2", "neighbour")]


def test_items_that_the_bundle_does_not_know_get_no_list(client: RedisClient) -> None:
    harness = Harness(client)
    harness.catalogue.put(make_product("new"))
    harness.writer.activate(load())

    assert set(harness.write()) == {f"similar:{item}" for item in ITEMS}


def test_an_item_that_a_list_rule_excludes_leaves_the_lists(client: RedisClient, tmp_path: Path) -> None:
    # given
    harness = Harness(client)
    harness.writer.activate(load())
    harness.write()
    path = tmp_path / "rules.toml"
    path.write_text('[[rules]]\nname = "recall"\naction = "exclude"\nitems = ["i1"]\n')
    rules = ListRules(harness.catalogue, FEATURES, RuleFile(path, FEATURES))
    harness.catalogue.mark_changed()
    rules.poll()
    rules.refresh(NOW_MS)
    # when
    harness.writer.write(NOW_MS, WHOLE, rules.of("popular"))
    # then
    assert harness.read()["similar:i0"] == [("i2", "neighbour")]


def test_another_bundle_writes_all_lists_anew(client: RedisClient) -> None:
    harness = Harness(client)
    harness.writer.activate(load("v1", i0={"i1": 0.5}))
    harness.write()

    harness.writer.activate(load("v2", i1={"i0": 0.5}))
    lists = harness.write()

    assert "together:i0" not in lists
    assert lists["together:i1"] == [("i0", "together")]
    (value,) = client.pipeline([("GET", "shop:similar:i2")])
    assert msgspec.json.decode(value, type=ShopList).model_version == "v2"


def test_lists_are_written_in_slices_of_the_budget_and_all_in_the_end(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given one item in a chunk, and a clock by which each takes longer than the budget
    monkeypatch.setattr(item_list_writer, "CHUNK", 1)
    ticks = iter(range(1_000))
    harness = Harness(client, budget_ms=1, clock_s=lambda: float(next(ticks)))
    harness.writer.activate(load())
    # then
    assert [len(harness.write()) for _ in ITEMS] == [1, 2, 3, 4]


def test_a_budget_of_zero_writes_no_lists(client: RedisClient) -> None:
    harness = Harness(client, budget_ms=0)
    harness.writer.activate(load())

    assert harness.write() == {}


def test_each_list_has_one_writer_and_goes_over_with_the_partitions(client: RedisClient) -> None:
    # given two workers
    harness = Harness(client)
    shares = ItemShare(frozenset({0}), 2), ItemShare(frozenset({1}), 2)
    written = []
    for share in shares:
        client.pipeline([("FLUSHALL",)])
        writer = harness.open_writer()
        writer.activate(load())
        writer.write(NOW_MS, share)
        written.append(set(harness.read()))
    assert not written[0] & written[1]
    assert written[0] | written[1] == {f"similar:{item}" for item in ITEMS}
    # when the partition of the first one goes over to the second one, whose own lists are written
    client.pipeline([("FLUSHALL",)])
    writer.write(NOW_MS, ItemShare(frozenset({0, 1}), 2))
    # then
    assert set(harness.read()) >= written[0]


def test_lists_of_a_failed_write_are_due_again_and_lost_ones_within_a_cycle(
    client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(item_list_writer, "CYCLE", 2)
    harness = Harness(client)
    harness.writer.activate(load())
    with monkeypatch.context() as patch:

        def fail(_: object) -> None:
            raise Unavailable("Redis should answer. Found no answer.")

        patch.setattr(harness.cache, "write_shop_lists", fail)
        with pytest.raises(Unavailable):
            harness.write()
    assert len(harness.write()) == len(ITEMS)
    # when
    client.pipeline([("FLUSHALL",)])
    for _ in range(2):
        lists = harness.write()
    # then
    assert len(lists) == len(ITEMS)


def test_a_catalogue_that_is_replaced_overnight_has_no_lists_until_a_bundle_knows_it(client: RedisClient) -> None:
    harness = Harness(client)
    harness.writer.activate(load())
    harness.write()
    for item in ITEMS:
        harness.catalogue.delist(item)
        harness.catalogue.put(make_product(f"new-{item}"))

    assert harness.write() == {}


@pytest.mark.parametrize(
    "arrays",
    [
        {"items": np.array([b"i0"]), "neighbours": np.zeros((2, 1), np.int32), "weights": np.zeros((2, 1))},
        {"items": np.array([b"i0"]), "neighbours": np.array([[7]]), "weights": np.ones((1, 1))},
        {"items": np.array([b"i0"]), "weights": np.ones((1, 1))},
    ],
    ids=["other length", "no such item", "no neighbours"],
)
def test_a_bundle_with_a_broken_table_of_items_bought_together_is_refused(arrays: dict[str, Any]) -> None:
    files = {**tiny_files(), "together.npz": pack_npz(arrays)}
    with pytest.raises(BadBundle, match=r"together\.npz|Neighbours should|Each of 1 items"):
        Model(Bundle(make_manifest("v1"), files), FEATURES)
