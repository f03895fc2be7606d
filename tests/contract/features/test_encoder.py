"""A folded batch as blocks, and as logged rows that keep every bit of them."""

from typing import Any, Final

import numpy as np
import pytest

from contract.events.model import Click, Product, Search
from contract.features.declaration import Block, Feature, FeatureSet
from contract.features.encoder import Encoder, UnknownItem, list_entities
from contract.features.packing import pack, pack_rows, split_rows, unpack_blocks
from contract.hashing import hash_id
from contract.messages import Decision, ScoredRow, ScoredRowBuilder, read_decision, read_scored_row, to_json, to_msgpack
from contract.profiles import warmup
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import FoldedBatch, InMemoryProfileStore, fold
from testkit.oracle.logs import make_random_log

NOW_MS: Final = 1_700_000_000_000
FEATURES: Final = FeatureSet(
    [
        Feature("clicks", "user", "number", "profile.user.clicks.count_1h"),
        Feature("recent", "user", "sequence", "profile.user.recent"),
        Feature("hour", "context", "number", "event.hour"),
        Feature("title", "item", "text", "item.title"),
        Feature("item", "item", "category", "item.item_id"),
        Feature("price", "item", "number", "item.price"),
    ]
)


def make_click(number: int, user: str = "u1") -> Click:
    return Click(event_id=f"e{number}", ts_ms=NOW_MS + number, user_id=user, item_id=f"i{number}", device_id="d")


def fold_events(
    *events: Any, extra_entities: tuple[str, ...] = (), store: InMemoryProfileStore | None = None
) -> FoldedBatch:
    arrivals = [Arrival("clicks/0", n, event, "shop.clicks", 0) for n, event in enumerate(events)]
    updates = to_updates(arrivals, extra_entities)
    return fold((store or InMemoryProfileStore()).read(updates.entities), updates)


def test_a_user_is_encoded_before_an_event_and_after_the_batch() -> None:
    # given
    folded = fold_events(make_click(0), make_click(1))
    encoder = Encoder(FEATURES)
    # when
    before = encoder.encode_before(folded, [0, 1], ["user"])["user"]
    after = encoder.encode_after(folded, [make_click(1)], ["user"])["user"]
    # then
    assert before.numbers[:, 0].tolist() == [0.0, 1.0]
    assert before.ids[1, :2].tolist() == [hash_id("item:i0"), 0]
    assert after.numbers[:, 0].tolist() == [2.0]
    assert set(after.ids[0, :2].tolist()) == {hash_id("item:i0"), hash_id("item:i1")}


def test_single_rows_are_encoded_like_a_batch() -> None:
    # given
    folded = fold_events(*(make_click(n, f"u{n % 3}") for n in range(9)))
    encoder = Encoder(FEATURES)
    # when
    together = encoder.encode_before(folded, range(9), ["user", "context"])
    # then
    for row in range(9):
        alone = encoder.encode_before(folded, [row], ["user", "context"])
        for group, block in alone.items():
            np.testing.assert_array_equal(block.numbers[0], together[group].numbers[row])
            np.testing.assert_array_equal(block.ids[0], together[group].ids[row])


def test_extra_entities_are_read_and_not_written() -> None:
    # given a user whose slices are in the store, and a batch that does not update them
    store = InMemoryProfileStore()
    store.merge(fold_events(make_click(0, "old")).slice_writes(), {}, {})
    # when
    folded = fold_events(make_click(1), extra_entities=("user:old", "user:new"), store=store)
    block = Encoder(FEATURES).encode_after(folded, [make_click(2, "old"), make_click(2, "new")], ["user"])["user"]
    # then
    assert block.numbers[:, 0].tolist() == [1.0, 0.0]
    assert not {"user:old", "user:new"} & set(folded.slice_writes())


def test_only_the_id_of_an_unknown_item_is_encoded() -> None:
    # given
    product = Product(event_id="p", ts_ms=1, item_id="i", title="Tea", price=2.5, currency="EUR", available=True)
    # when
    known = Encoder(FEATURES).encode_items([product, UnknownItem("i")])
    # then
    np.testing.assert_array_equal(known.numbers[:, 0], np.array([2.5, np.nan], np.float32))
    assert known.ids[0, -1] == known.ids[1, -1] == hash_id("item_id=i")
    assert known.ids[0, 0] == hash_id("wtea")
    assert not known.ids[1, :-1].any()


def test_the_entities_of_an_arrival_are_listed() -> None:
    folded = fold_events(make_click(0), make_click(1, "u2"))
    assert list_entities(folded, [1]) == [("user:u2", "item:i1", "device:d")]


def test_a_logged_row_restores_the_served_features_bit_by_bit() -> None:
    # given
    folded = fold_events(make_click(0), make_click(1))
    encoded = Encoder(FEATURES).encode_before(folded, [1], ["user", "context"])
    row = ScoredRowBuilder(FEATURES.digest, "v1").build(
        "click",
        folded.updates.arrivals[1],
        split_rows(encoded)[0],
        items=("i1",),
        scores={"click": (0.125,)},
        entities=list_entities(folded, [1])[0],
    )
    # when
    actual = read_scored_row(to_msgpack(row))
    # then
    assert actual == row
    assert (actual.topic, actual.partition, actual.offset, actual.user_id, actual.ts_ms) == (
        "shop.clicks",
        0,
        1,
        "u1",
        NOW_MS + 1,
    )
    for group, block in unpack_blocks(actual.groups, FEATURES, actual.features).items():
        assert block.numbers.tobytes() == encoded[group].numbers.tobytes()
        assert block.ids.tobytes() == encoded[group].ids.tobytes()


def test_a_row_of_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match="should have the features"):
        unpack_blocks({}, FEATURES, "another digest")


def test_a_search_row_has_its_query() -> None:
    # given
    search = Search(event_id="s", ts_ms=NOW_MS, user_id="u", query="red shoes")
    # when
    row: ScoredRow = ScoredRowBuilder("f", "").build("search", Arrival("searches/0", 0, search), {})
    # then
    assert row.query == "red shoes"


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_blocks_with_any_number_of_rows_are_packed(rows: int) -> None:
    # given
    block = Block(
        np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), np.arange(rows * 3, dtype=np.int64).reshape(rows, 3)
    )
    # when
    actual = pack(block).unpack()
    # then
    assert len(actual) == rows
    assert actual.numbers.tobytes() == block.numbers.tobytes()
    assert actual.ids.tobytes() == block.ids.tobytes()


@pytest.mark.parametrize(("numbers", "ids"), [(2, 3), (1, 0), (0, 1), (0, 0)])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_each_row_is_packed_like_a_block_of_its_own(rows: int, numbers: int, ids: int) -> None:
    # given
    wide = Block(
        np.arange(rows * 8, dtype=np.float32).reshape(rows, 8), np.arange(rows * 8, dtype=np.int64).reshape(rows, 8)
    )
    block = Block(wide.numbers[:, :numbers], wide.ids[:, :ids])
    # when
    actual = pack_rows(block)
    # then
    assert actual == [pack(block.take([row])) for row in range(rows)]
    assert {type(packed.numbers) for packed in actual} | {type(packed.ids) for packed in actual} <= {bytes}


def test_a_decision_is_plain_json_and_unknown_fields_are_ignored() -> None:
    # given
    decision = Decision(
        event_id="o1",
        user_id="u1",
        ts_ms=1,
        probability={"fraud": 0.5},
        action="review",
        reasons=("many users",),
        model_version="v1",
    )
    # when
    written = to_json(decision)
    # then
    assert written == (
        b'{"event_id":"o1","user_id":"u1","ts_ms":1,"probability":{"fraud":0.5},"action":"review",'
        b'"reasons":["many users"],"model_version":"v1","degraded":false}'
    )
    assert read_decision(written[:-1] + b',"later":1}') == decision


def test_a_batch_of_all_kinds_of_events_is_encoded(seed: int) -> None:
    # given
    updates = to_updates(make_random_log(seed, 300))
    folded = fold(InMemoryProfileStore().read(updates.entities), updates)
    # when
    encoded = Encoder(FEATURES).encode_before(folded, range(300), ["user", "context"])
    # then
    assert len(encoded["user"]) == len(encoded["context"]) == 300


def test_folds_can_be_compiled_ahead_of_time() -> None:
    warmup.load_folds()
