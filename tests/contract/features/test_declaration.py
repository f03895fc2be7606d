"""Features: valid declarations, and the arrays that they encode events and profiles as."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.errors import BadConfig
from contract.events.model import Click, Line, Order, Product, Search
from contract.features.columns import WIDTHS, ProfileAggregates, encode_text
from contract.features.declaration import Feature, FeatureSet
from contract.features.encoder import Encoder
from contract.features.reading import read_features
from contract.hashing import hash_id
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import AGGREGATES, RING_SIZE
from contract.profiles.store import InMemoryProfileStore, fold
from contract.units import MINUTE_MS
from tests.checkout import ROOT

NOTHING: Final = ProfileAggregates({}, {})


def declare_features(**features: tuple[str, str, str]) -> FeatureSet:
    """A set from name=(group, kind, source)."""
    return FeatureSet(Feature(name, *rest) for name, rest in features.items())  # type: ignore[arg-type]


def make_order(number: int = 0, **changes: Any) -> Order:
    whole: dict[str, Any] = {
        "event_id": f"o{number}",
        "ts_ms": 1_700_000_000_000 + 1_000 * number,
        "user_id": "u",
        "lines": (Line(item_id="i", quantity=3, unit_price=2.0), Line(item_id="j", quantity=2, unit_price=1.0)),
        "amount": 8.0,
        "currency": "EUR",
        "payment_method": "card",
    }
    return Order(**{**whole, **changes})


def encode_number(source: str, event: Any, group: str = "order") -> float:
    block = declare_features(x=(group, "number", source)).encode(group, [event], NOTHING)
    return float(block.numbers[0, 0])


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("event.amount", 8.0),
        ("event.lines_count", 2.0),
        ("event.quantity", 5.0),
        ("event.account_age_s", 60.0),
        ("event.abroad", 1.0),
        ("event.hour", 22.0),
        ("event.weekday", 5.0),
    ],
)
def test_numbers_of_an_order(source: str, value: float) -> None:
    whole = make_order(account_created_ms=1_700_000_000_000 - MINUTE_MS, shipping_country="DE", billing_country="FR")
    assert encode_number(source, whole) == value


@pytest.mark.parametrize("source", ["event.account_age_s", "event.abroad", "event.account_created_ms", "event.rank"])
def test_an_unknown_number_is_nan(source: str) -> None:
    assert np.isnan(encode_number(source, make_order()))


@pytest.mark.parametrize("source", ["event.surface", "event.device_id"])
def test_only_an_unknown_id_is_0(source: str) -> None:
    # given
    features = declare_features(x=("context", "category", source))
    click = Click(event_id="e", ts_ms=1, user_id="u", item_id="i", surface="cart", device_id="d")
    # then
    assert features.encode("context", [make_order()], NOTHING).ids.tolist() == [[0]]
    assert features.encode("context", [click], NOTHING).ids[0, 0] > 0


def test_equal_words_in_two_fields_have_two_ids() -> None:
    # given
    features = declare_features(
        a=("order", "category", "event.shipping_country"), b=("order", "category", "event.currency")
    )
    # when
    ids = features.encode("order", [make_order(shipping_country="EUR")], NOTHING).ids
    # then
    assert ids.tolist() == [[hash_id("shipping_country=EUR"), hash_id("currency=EUR")]]


def test_numbers_and_ids_have_columns_in_the_order_of_declaration() -> None:
    # given
    features = declare_features(
        second=("order", "category", "event.currency"),
        first=("order", "number", "event.quantity"),
        other=("user", "sequence", "profile.user.recent"),
        text=("query", "text", "query.text"),
        last=("order", "number", "event.amount"),
    )
    # then
    assert [feature.name for feature in features.numbers("order")] == ["first", "last"]
    assert {group: features.widths(group) for group in ("order", "user", "query", "item")} == {
        "order": (2, 1),
        "user": (0, RING_SIZE),
        "query": (0, WIDTHS["text"]),
        "item": (0, 0),
    }
    assert features.encode("order", [make_order()], NOTHING).numbers.tolist() == [[5.0, 8.0]]


RATIO: Final[Mapping[str, tuple[str, str, str]]] = {
    "top": ("order", "number", "event.amount"),
    "bottom": ("order", "number", "event.account_age_s"),
    "share": ("order", "number", "ratio top / bottom"),
}


@pytest.mark.parametrize(
    ("age_s", "share"), [(4.0, 2.0), (0.0, np.nan), (-4.0, np.nan), (None, np.nan)], ids=["4", "0", "-4", "unknown"]
)
def test_a_ratio_is_unknown_unless_its_denominator_is_positive(age_s: float | None, share: float) -> None:
    # given
    created = None if age_s is None else 1_700_000_000_000 - int(age_s * 1_000)
    # when
    block = declare_features(**RATIO).encode("order", [make_order(account_created_ms=created)], NOTHING)
    # then
    np.testing.assert_array_equal(block.numbers[0, 2], np.float32(share))


def test_profile_features_use_the_first_entity_of_a_kind_or_nan() -> None:
    # given two consecutive orders with one card, and a click without a card
    features = declare_features(
        count=("order", "number", "profile.card.orders.count_10m"), recent=("user", "sequence", "profile.card.recent")
    )
    click = Click(event_id="e", ts_ms=1_700_000_009_000, user_id="u", item_id="i")
    log = [Arrival("orders/0", n, make_order(n, card_id="c", user_id=f"u{n}")) for n in range(2)]
    updates = to_updates([*log, Arrival("clicks/0", 0, click)])
    folded = fold(InMemoryProfileStore().read(updates.entities), updates)
    # when
    blocks = Encoder(features).encode_before(folded, [0, 1, 2], ["order", "user"])
    # then
    np.testing.assert_array_equal(blocks["order"].numbers[:, 0], [0.0, 1.0, np.nan])
    assert blocks["user"].ids[:, 0].tolist() == [0, hash_id("user:u0"), 0]


def test_an_encoder_without_profile_features_gathers_no_aggregates() -> None:
    # given
    updates = to_updates([Arrival("orders/0", 0, make_order())])
    folded = fold(InMemoryProfileStore().read(updates.entities), updates)
    # then
    assert Encoder(declare_features(x=("order", "number", "event.amount"))).gather_aggregates(folded, [0]) == NOTHING


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"group": "user"}, {"kind": "category"}, {"source": "event.quantity"}]
)
def test_a_digest_changes_with_every_part_of_a_declaration(changes: dict[str, str]) -> None:
    feature = Feature("x", "order", "number", "event.amount")
    assert msgspec.structs.replace(feature, **changes).digest != feature.digest


def test_digests_are_stable_and_a_set_s_digest_depends_on_order() -> None:
    a, b = Feature("a", "order", "number", "event.amount"), Feature("b", "order", "number", "event.quantity")
    assert a.digest == Feature("a", "order", "number", "event.amount").digest
    assert len({FeatureSet(features).digest for features in ([a], [b], [a, b], [b, a], [])}) == 5


def test_a_selection_keeps_order_and_digests() -> None:
    # given
    whole = read_features(ROOT / "features.toml")
    names = [feature.name for feature in whole.features if feature.kind != "number"][::-1]
    # when
    part = whole.select(names)
    # then
    assert [feature.name for feature in part.features] == names[::-1]
    assert all(part.digests[name] == whole.digests[name] for name in names)


WRONG: Final[dict[str, tuple[dict[str, tuple[str, str, str]], str]]] = {
    "an unknown aggregate": ({"x": ("user", "number", "profile.user.orders.count_2h")}, "count_2h"),
    "an unknown entity kind": ({"x": ("user", "number", "profile.planet.orders.count_1h")}, "planet"),
    "an unknown event field": ({"x": ("order", "number", "event.colour")}, "colour"),
    "an unknown item field": ({"x": ("item", "number", "item.colour")}, "colour"),
    "a sequence of a number": ({"x": ("user", "sequence", "profile.user.orders.count_1h")}, "sequence"),
    "a sequence of an event": ({"x": ("user", "sequence", "event.amount")}, "sequence"),
    "a category of a derived number": ({"x": ("context", "category", "event.hour")}, "category"),
    "a number of a query": ({"x": ("query", "number", "query.text")}, "query.text"),
    "a ratio of one": ({"a": ("order", "number", "event.amount"), "x": ("order", "number", "ratio a")}, "two others"),
    "a ratio that is not a number": ({**RATIO, "x": ("order", "category", "ratio top / bottom")}, "category"),
    "a ratio of later features": ({"x": ("order", "number", "ratio top / bottom"), **RATIO}, "not before it"),
    "a ratio of another group": ({**RATIO, "x": ("user", "number", "ratio top / bottom")}, "of its group"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_declaration_is_refused(wrong: str) -> None:
    features, words = WRONG[wrong]
    with pytest.raises(BadConfig, match=words):
        declare_features(**features)


def test_all_mistakes_are_reported_at_once() -> None:
    # given
    twice = Feature("x", "order", "number", "event.colour")
    # when
    with pytest.raises(BadConfig) as caught:
        FeatureSet([twice, twice, Feature("y", "item", "number", "item.colour")])
    # then
    assert len(caught.value.errors) == 4


@pytest.mark.parametrize(
    "text",
    [
        "[[features]]\nname='x'\n",
        "x = [",
        "features = 3",
        "[[features]]\nname='x'\ngroup='moon'\nkind='number'\nsource='a'",
    ],
)
def test_a_file_without_valid_features_is_refused(tmp_path: Path, text: str) -> None:
    # given
    path = tmp_path / "features.toml"
    path.write_text(text)
    # then
    with pytest.raises(BadConfig, match=r"features\.toml should declare features"):
        read_features(path)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"features\.toml"):
        read_features(tmp_path / "features.toml")
    (tmp_path / "features.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match=r"features\.toml"):
        read_features(tmp_path / "features.toml")


def test_features_toml_encodes_every_group_of_every_event() -> None:
    # given
    features = read_features(ROOT / "features.toml")
    events: list[Any] = [
        make_order(card_id="c", device_id="d", ip="::1"),
        Search(event_id="s", ts_ms=1_700_000_000_000, user_id="u", query="red shoes"),
        Click(event_id="k", ts_ms=1_700_000_000_000, user_id="u", item_id="i"),
    ]
    sources = ("orders/0", "searches/0", "clicks/0")
    updates = to_updates([Arrival(source, 0, event) for source, event in zip(sources, events, strict=True)])
    folded = fold(InMemoryProfileStore().read(updates.entities), updates)
    product = Product(
        event_id="p", ts_ms=1, item_id="i", title="Red shoes", price=9.0, currency="EUR", available=True, stock=2**53
    )
    # when
    encoder = Encoder(features)
    blocks = encoder.encode_before(folded, range(3), ["user", "context", "order", "query"])
    blocks["item"] = encoder.encode_items([product])
    # then
    for group, block in blocks.items():
        assert (block.numbers.shape[1], block.ids.shape[1]) == features.widths(group)
        assert block.numbers.dtype == np.float32
        assert not np.isinf(block.numbers).any()
        assert (block.ids >= 0).all()
    assert (blocks["query"].ids[1] > 0).any()
    assert not blocks["query"].ids[0].any()


def test_text_is_encoded_as_words_and_their_trigrams() -> None:
    # when
    ids = encode_text("Red, RED  tie!")
    # then
    grams = ["wred", "wtie", "c_re", "cred", "ced_", "c_ti", "ctie", "cie_"]
    assert ids == tuple(hash_id(gram) for gram in grams) + (0,) * (WIDTHS["text"] - len(grams))


@given(text=st.text())
def test_any_text_fits_the_width(text: str) -> None:
    ids = encode_text(text)
    assert len(ids) == WIDTHS["text"]
    assert not any(itertools.dropwhile(bool, ids)), "zeros should come last"


def test_aggregates_have_distinct_names() -> None:
    assert len(set(AGGREGATES)) == len(AGGREGATES)


def make_product(vector: tuple[float, ...] | None) -> Product:
    return Product(
        event_id="e", ts_ms=1, item_id="i", title="t", price=1.0, currency="EUR", available=True, vector=vector
    )


def test_vectors_follow_the_numbers_and_other_lengths_are_unknown() -> None:
    # given
    features = FeatureSet(
        [Feature("look", "item", "vector", "item.vector", 2), Feature("price", "item", "number", "item.price")]
    )
    # when
    block = features.encode("item", [make_product((3.0, 4.0)), make_product((5.0,)), make_product(None)], NOTHING)
    # then
    nan = np.nan
    np.testing.assert_array_equal(block.numbers, [[1, 3, 4], [1, nan, nan], [1, nan, nan]])
    assert features.widths("item") == (3, 0)


def test_a_vector_of_another_size_has_another_digest() -> None:
    short, long = (Feature("look", "item", "vector", "item.vector", size) for size in (2, 3))
    assert short.digest != long.digest


@pytest.mark.parametrize(
    "feature",
    [
        Feature("x", "item", "vector", "item.vector"),
        Feature("x", "item", "vector", "item.vector", 2_001),
        Feature("x", "item", "vector", "item.price", 2),
        Feature("x", "item", "number", "item.price", 2),
        Feature("x", "item", "number", "column."),
    ],
)
def test_a_vector_needs_its_size_and_a_column_its_name(feature: Feature) -> None:
    with pytest.raises(BadConfig, match="should have a s"):
        FeatureSet([feature])


@pytest.mark.parametrize("kind", ["number", "category", "text", "sequence"])
def test_a_table_column_is_unknown_for_events(kind: str) -> None:
    # given
    features = declare_features(x=("order", kind, "column.years"))
    # when
    block = features.encode("order", [make_order(), make_order(1)], NOTHING)
    # then
    assert np.isnan(block.numbers).all()
    assert not block.ids.any()


@pytest.mark.parametrize(
    ("shipping", "billing", "is_abroad"),
    [
        ("DE", "DE", 0.0),
        ("DE", "FR", 1.0),
        ("Germany", "germany", 0.0),
        ("Germany", "France", 1.0),
        ("DE", "Germany", None),
        ("EU", "DE", None),
        ("GB", "EN", None),
    ],
)
def test_whether_an_order_ships_abroad_is_not_known_from_a_code_and_anything_else(
    shipping: str, billing: str, is_abroad: float | None
) -> None:
    features = declare_features(a=("order", "number", "event.abroad"))
    (number,) = features.encode(
        "order", [make_order(shipping_country=shipping, billing_country=billing)], NOTHING
    ).numbers[0]
    assert (None if np.isnan(number) else number) == is_abroad
