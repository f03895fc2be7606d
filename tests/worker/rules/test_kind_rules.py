"""What each rule does to a list, alone and together with others."""

import numpy as np
import pytest

from contract.units import DAY_MS
from tests.worker.events import FEATURES, NOW_MS, make_product
from tests.worker.rules.rule_sets import arrange, compile_rules, make_catalogue, make_rule
from worker.rules.kind_rules import KindRules

ALL = [f"i{n}" for n in range(8)]
NONE = np.zeros(0, np.int64)


def without(*items: str) -> list[str]:
    return [item for item in ALL if item not in items]


@pytest.mark.parametrize(
    ("selectors", "excluded"),
    [
        ({"items": ["i2", "i5", "unknown"]}, ["i2", "i5"]),
        ({"categories": ["shoes"]}, ["i0", "i1", "i2"]),
        ({"brands": ["north", "west"]}, ["i0", "i2", "i3", "i6", "i7"]),
        ({"categories": ["shoes"], "brands": ["north"]}, ["i0", "i2"]),
        ({"sellers": ["unknown"]}, []),
        ({"price": {"min": 30, "max": 50}}, ["i2", "i3", "i4"]),
        ({"price": {"max": 19.99}}, ["i0"]),
        ({"stock": {"max": 5}}, []),  # no product states its stock
        ({"age_days": {"min": 1}}, []),
        ({"features": {"item_price": {"min": 70}}}, ["i6", "i7"]),
        ({"features": {"item_category": {"equals": "hats"}}}, ["i3", "i4"]),
    ],
)
def test_an_excluded_item_is_on_no_list_and_the_others_keep_their_order(
    selectors: dict[str, object], excluded: list[str]
) -> None:
    assert list(arrange(make_catalogue(), make_rule("exclude", **selectors))) == without(*excluded)


def test_prices_are_compared_as_the_catalogue_has_them() -> None:
    catalogue = make_catalogue()
    catalogue.put(make_product("i1", price=19.99))

    for bounds in ({"min": 19.99, "max": 19.99}, {"max": 19.99, "min": 19.98}):
        assert "i1" not in arrange(catalogue, make_rule("exclude", price=bounds))


def test_stock_and_age_select_what_states_them() -> None:
    catalogue = make_catalogue()
    catalogue.put(make_product("i1", stock=3))
    catalogue.put(make_product("new", ts_ms=NOW_MS - DAY_MS // 2))
    catalogue.first_seen_ms[:8] = NOW_MS - 10 * DAY_MS

    assert "i1" not in arrange(catalogue, make_rule("exclude", stock={"max": 3}))
    assert list(arrange(catalogue, make_rule("exclude", age_days={"min": 9}))) == ["i8"]
    assert list(arrange(catalogue, make_rule("exclude", age_days={"max": 1}))) == ALL


def test_a_boost_multiplies_the_value_and_is_named() -> None:
    catalogue = make_catalogue()

    actual = arrange(catalogue, make_rule("boost", brands=["west"], factor=2.3))

    assert list(actual) == ["i0", "i6", "i1", "i2", "i3", "i4", "i5", "i7"]  # 0.4 * 2.3 = 0.92
    assert actual["i6"] == "boost"
    assert [name for item, name in actual.items() if item != "i6"] == [""] * 7


def test_overlapping_boosts_multiply_and_are_all_named() -> None:
    rules = [
        make_rule("boost", name="west", brands=["west"], factor=2),
        make_rule("boost", name="cheap", price={"max": 70}, factor=2),
    ]

    actual = arrange(make_catalogue(), *rules)

    assert next(iter(actual)) == "i0"
    assert actual["i6"] == "west, cheap"
    assert actual["i7"] == ""


def test_a_boost_of_logarithms_adds_and_values_below_zero_stay() -> None:
    compiled = compile_rules(make_catalogue(), make_rule("boost", items=["i0"], factor=4))
    values = np.array([-1.0, -1.0], np.float32)

    assert compiled.boost(values, np.array([0, 1]), is_log=True).tolist() == pytest.approx([np.log(4) - 1, -1])
    assert compiled.boost(values, np.array([0, 1]), is_log=False).tolist() == [-1.0, -1.0]


def test_boosts_together_stay_finite() -> None:
    rules = [make_rule("boost", name=f"b{n}", items=["i7"], factor=1_000) for n in range(20)]

    compiled = compile_rules(make_catalogue(), *rules)

    assert np.isfinite(compiled.boost(np.ones(1, np.float32), np.array([7]), is_log=False)).all()


def test_buried_items_come_after_all_others_also_after_those_beyond_a_soft_cap() -> None:
    catalogue = make_catalogue()

    assert list(arrange(catalogue, make_rule("bury", categories=["shoes"])))[-3:] == ["i0", "i1", "i2"]
    assert list(arrange(catalogue, make_rule("bury", items=["i0"]), category_max=1))[-1] == "i0"


def test_a_pinned_item_is_at_its_position_and_names_its_rule() -> None:
    actual = arrange(make_catalogue(), make_rule("pin", items=["i6"], position=2), length=4)

    assert list(actual.items()) == [("i0", ""), ("i6", "pin"), ("i1", ""), ("i2", "")]


def test_of_two_pins_at_one_position_the_first_rule_has_it() -> None:
    rules = [make_rule("pin", name="a", items=["i6", "i7"]), make_rule("pin", name="b", items=["i5"])]

    assert list(arrange(make_catalogue(), *rules, length=4).items()) == [
        ("i6", "a"),
        ("i7", "a"),
        ("i5", "b"),
        ("i0", ""),
    ]


def test_an_item_that_two_rules_pin_is_pinned_by_the_first() -> None:
    rules = [make_rule("pin", name="a", items=["i6"], position=3), make_rule("pin", name="b", items=["i6"])]

    assert arrange(make_catalogue(), *rules, length=4) == {"i0": "", "i1": "", "i6": "a", "i2": ""}


def test_a_pin_beyond_the_list_is_not_on_it_and_one_beyond_its_items_is_last() -> None:
    catalogue = make_catalogue()
    pin = make_rule("pin", items=["i0"], position=15)

    assert list(arrange(catalogue, pin, length=4)) == ["i0", "i1", "i2", "i3"]  # as without the rule
    assert list(arrange(catalogue, pin, length=20)) == [*without("i0"), "i0"]


@pytest.mark.parametrize("rule", [{"items": ["i6"]}, {"brands": ["west"]}])
def test_a_pin_that_is_also_excluded_is_not_shown(rule: dict[str, list[str]]) -> None:
    rules = [make_rule("pin", items=["i6"]), make_rule("exclude", **rule)]

    assert list(arrange(make_catalogue(), *rules)) == without("i6")


def test_a_pin_that_is_sold_out_or_unknown_is_not_shown() -> None:
    catalogue = make_catalogue()
    catalogue.delist("i6")

    assert list(arrange(catalogue, make_rule("pin", items=["i6", "unknown", "i5"]), length=3)) == ["i0", "i1", "i5"]


def test_rules_that_exclude_every_item_are_suspended_and_named() -> None:
    catalogue = make_catalogue()
    rules = [make_rule("exclude", name="a", price={"min": 50}), make_rule("exclude", name="b", price={"max": 60})]

    assert arrange(catalogue, *rules) == dict.fromkeys(ALL, "a, b")
    # an item that neither excludes, though it is sold out, ends that
    catalogue.put(make_product("other", price=55, available=False))
    rules[0] = make_rule("exclude", name="a", price={"min": 56})
    rules[1] = make_rule("exclude", name="b", price={"max": 54})
    catalogue.delist("i4")

    assert arrange(catalogue, *rules) == {}


def test_suspended_rules_of_personal_lists_leave_what_popular_lists_show() -> None:
    catalogue = make_catalogue()
    popular = compile_rules(catalogue, make_rule("exclude", brands=["north"]))
    personal = KindRules([make_rule("exclude", name="all", price={"min": 0})], catalogue, FEATURES, popular)

    personal.refresh(np.arange(len(catalogue)), NOW_MS)

    assert personal.suspended == "all"
    assert np.flatnonzero(~personal.is_excluded[:8]).tolist() == [1, 4, 5, 6]


def test_any_choice_of_the_thinned_fresh_items_keeps_within_caps_and_none_is_buried() -> None:
    catalogue = make_catalogue()
    rules = [
        make_rule("cap", per="brand", max=2),
        make_rule("pin", items=["i3"]),
        make_rule("bury", items=["i5"]),
        make_rule("exclude", items=["i6"]),
    ]

    thinned = compile_rules(catalogue, *rules).thin_fresh(np.arange(8))

    assert thinned.tolist() == [0, 1, 4]  # of north only one more than the pinned i3
