"""What rules hide from users because of what they bought or saw."""

import numpy as np

from contract.hashing import item_hash
from contract.profiles.histories import CLICK, ORDER, LatestItems
from contract.units import DAY_MS
from tests.worker.events import NOW_MS, make_order
from tests.worker.rules.rule_sets import compile_rules, make_catalogue, make_rule
from worker.recommend.recent_purchases import BUYERS_MAX, KEEP_MS, RecentPurchases
from worker.rules.hiding import Hidden, find_hidden

# item, action and age in days of each entry of a user's history, newest first
HISTORY = (("i0", CLICK, 1), ("i3", ORDER, 2), ("gone", ORDER, 2), ("i6", ORDER, 3), ("i5", CLICK, 40))


def find(*rules: dict[str, object], purchases: dict[str, int] | None = None) -> tuple[list[int], list[str]]:
    """The items and categories that are hidden from the second of two users; the first has no history."""
    catalogue = make_catalogue()
    compiled = compile_rules(catalogue, *[make_rule("hide", name=str(n), **rule) for n, rule in enumerate(rules)])
    shape = (2, len(HISTORY))
    latest = LatestItems(np.zeros(shape, np.uint64), np.zeros(shape, np.uint8), np.zeros(shape, np.uint32))
    for place, (item, action, days) in enumerate(HISTORY):
        latest.items[1, place], latest.actions[1, place] = item_hash(item), action
        latest.seen_s[1, place] = (NOW_MS - days * DAY_MS) // 1_000
    hidden = find_hidden(compiled.hides, latest, np.full(2, NOW_MS), [{}, purchases or {}], catalogue)
    assert not len(hidden.items[0])
    assert not len(hidden.categories[0])
    return hidden.items[1].tolist(), [catalogue.categories.words[code] for code in hidden.categories[1].tolist()]


def test_what_was_bought_is_hidden_for_the_days_of_the_rule() -> None:
    assert find({"after": "bought", "days": 30}) == ([3, 6], [])
    assert find({"after": "bought", "days": 2.5}) == ([3], [])
    assert find({"after": "bought", "days": 0}) == ([], [])


def test_what_was_seen_includes_what_was_bought() -> None:
    assert find({"after": "seen", "days": 30}) == ([0, 3, 6], [])
    assert find({"after": "seen", "days": 365}) == ([0, 3, 5, 6], [])


def test_a_category_is_hidden_and_an_item_without_one_alone() -> None:
    assert find({"after": "bought", "days": 30, "scope": "category"}) == ([6], ["hats"])


def test_selectors_choose_what_is_hidden() -> None:
    assert find({"after": "bought", "days": 30, "brands": ["west"]}) == ([6], [])


def test_rules_together_hide_what_any_of_them_hides() -> None:
    rules = {"after": "bought", "days": 30, "scope": "category"}, {"after": "seen", "days": 1.5}

    assert find(*rules) == ([0, 6], ["hats"])


def test_purchases_that_the_history_lacks_count() -> None:
    purchases = {"i7": NOW_MS - DAY_MS, "unknown": NOW_MS}

    assert find({"after": "bought", "days": 2.5}, purchases=purchases) == ([3, 7], [])
    assert find({"after": "bought", "days": 0.5}, purchases=purchases) == ([], [])


def test_hidden_items_of_two_kinds_are_joined_by_user() -> None:
    bought = Hidden.of_items([np.array([1, 2]), np.array([], np.int64)])
    seen = Hidden.of_items([np.array([2, 3]), np.array([4])])

    assert [items.tolist() for items in bought.join(seen).items] == [[1, 2, 3], [4]]


def test_recent_purchases_are_kept_for_an_hour_and_for_the_latest_buyers() -> None:
    purchases = RecentPurchases()
    purchases.record(make_order("o1", "a", user="u"))
    purchases.record(make_order("o2", "b", user="v", ts_ms=NOW_MS + 1))
    assert dict(purchases.of("u")) == {"a": NOW_MS}

    purchases.record(make_order("o3", "c", user="v", ts_ms=NOW_MS + KEEP_MS))
    assert (dict(purchases.of("u")), list(purchases.of("v"))) == ({}, ["b", "c"])

    for n in range(BUYERS_MAX):
        purchases.record(make_order(f"p{n}", "a", user=f"u{n}", ts_ms=NOW_MS + KEEP_MS))
    assert dict(purchases.of("v")) == {}


def test_an_order_that_comes_late_leaves_the_time_of_a_later_one() -> None:
    # given an item of two orders, the later of which comes first
    purchases = RecentPurchases()
    purchases.record(make_order("o2", "a", "b", user="u", ts_ms=NOW_MS + 2))
    purchases.record(make_order("o1", "a", "c", user="u", ts_ms=NOW_MS))
    # then it was bought at the later time, also after an erasure of what was before
    assert dict(purchases.of("u")) == {"a": NOW_MS + 2, "b": NOW_MS + 2, "c": NOW_MS}
    purchases.forget_erased({"u": NOW_MS + 1})
    assert dict(purchases.of("u")) == {"a": NOW_MS + 2, "b": NOW_MS + 2}


def test_recent_purchases_of_an_erased_user_are_those_after_the_erasure() -> None:
    # given
    purchases = RecentPurchases()
    purchases.record(make_order("o1", "a", "b", user="u", ts_ms=NOW_MS))
    purchases.record(make_order("o2", "b", "c", user="u", ts_ms=NOW_MS + 1))
    purchases.record(make_order("o3", "a", user="v", ts_ms=NOW_MS))
    purchases.record(make_order("o4", "a", user="w", ts_ms=NOW_MS))
    # when
    purchases.forget_erased({"u": NOW_MS, "v": NOW_MS, "stranger": NOW_MS})
    # then
    assert dict(purchases.of("u")) == {"b": NOW_MS + 1, "c": NOW_MS + 1}
    assert dict(purchases.of("v")) == {}
    assert dict(purchases.of("w")) == {"a": NOW_MS}
