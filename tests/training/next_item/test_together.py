"""Items bought together: planted pairs are found, and what is bought with everything is with nothing."""

import numpy as np
import pytest

from contract.errors import BadBundle
from export.exporter import list_together
from model.sequence.next_item import decode_texts
from training.next_item.histories import History
from training.next_item.together import BASKET_MAX, ORDER, SUPPORT_MIN, TOGETHER_MAX, find_together

CLICK = 1


def make_history(baskets: list[list[int]], items: int = 40, action: int = ORDER, *, has_times: bool = True) -> History:
    """Each basket is an order of another user."""
    rows = [(user, item) for user, basket in enumerate(baskets) for item in basket]
    user, item = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    names = np.array([f"i{n}".encode() for n in range(items)], np.bytes_)
    return History(user, item, user * 1_000, np.full(len(rows), action, np.int8), names, has_times)


def together(history: History) -> dict[str, list[str]]:
    """The items that are bought together with each item, strongest first."""
    tensors = find_together(history)
    if not tensors:
        return {}
    items = [item.decode() for item in decode_texts(tensors["items"]).tolist()]
    return {
        item: [items[row] for row in rows if row >= 0]
        for item, rows in zip(items, tensors["rows"].tolist(), strict=True)
    }


def draw_baskets(seed: int = 0) -> list[list[int]]:
    """2,000 baskets: items 1 and 2 often go together, as do 3 and 4; item 0 is in most baskets, with anything."""
    rng, baskets = np.random.default_rng(seed), []
    for _ in range(2_000):
        basket = set(rng.choice(np.arange(5, 40), int(rng.integers(1, 4)), replace=False).tolist())
        for pair in ((1, 2), (3, 4)):
            if rng.random() < 0.05:
                basket.update(pair if rng.random() < 0.8 else pair[:1])
        if rng.random() < 0.7:
            basket.add(0)
        baskets.append(sorted(basket))
    return baskets


def test_planted_pairs_are_found_and_an_item_of_most_baskets_is_with_nothing() -> None:
    others_by_item = together(make_history(draw_baskets()))

    assert others_by_item["i1"][0] == "i2"
    assert others_by_item["i2"][0] == "i1"
    assert others_by_item["i3"][0] == "i4"
    with_popular = [item for item, others in others_by_item.items() if "i0" in others]
    assert len(with_popular) <= 2
    assert sum(map(len, others_by_item.values())) < 30  # of 1,560 pairs


def test_strength_falls_along_a_row_and_is_a_share_of_both_items_baskets() -> None:
    baskets = [[1, 2]] * 8 + [[1, 3]] * 4 + [[1], [2], [3]] + [[4]] * 200
    tensors = find_together(make_history(baskets))

    first = decode_texts(tensors["items"]).tolist().index(b"i1")
    assert tensors["weights"][first].tolist() == pytest.approx([8 / np.sqrt(13 * 9), 4 / np.sqrt(13 * 5)])


@pytest.mark.parametrize(("count", "is_found"), [(SUPPORT_MIN - 1, False), (SUPPORT_MIN, True)])
def test_a_pair_counts_from_the_least_support_on(count: int, is_found: bool) -> None:
    assert bool(together(make_history([[1, 2]] * count + [[4]] * 200))) == is_found


def test_an_item_twice_in_an_order_is_one_and_clicks_are_no_baskets() -> None:
    assert together(make_history([[1, 1]] * 50 + [[4]] * 50)) == {}
    assert together(make_history([[1, 2]] * 50 + [[4]] * 50, action=CLICK)) == {}


def test_without_times_nothing_is_known_of_baskets() -> None:
    assert together(make_history([[1, 2]] * 50 + [[4]] * 50, has_times=False)) == {}
    assert find_together(make_history([[1]]).select(np.zeros(0, np.int64))) == {}


def test_orders_of_one_user_at_two_times_are_two_baskets() -> None:
    history = make_history([[1, 2]] * 50 + [[4]] * 50)
    apart = History(history.user, history.item, np.arange(len(history)), history.action, history.names)

    assert together(history)
    assert together(apart) == {}


def test_a_bulk_order_and_long_rows_are_bounded() -> None:
    bulk = make_history([list(range(BASKET_MAX + 1))] * 9 + [[0]] * 300, items=BASKET_MAX + 1)
    assert together(bulk) == {}
    wide = together(make_history([list(range(TOGETHER_MAX + 10))] * 9 + [[60]] * 300, items=61))
    assert {len(others) for others in wide.values()} == {TOGETHER_MAX}


def test_a_checkpoint_with_half_of_the_table_is_not_exported() -> None:
    tensors = find_together(make_history([[1, 2]] * 50 + [[4]] * 50))
    assert set(list_together(tensors)) == {"items", "neighbours", "weights"}
    del tensors["weights"]
    with pytest.raises(BadBundle, match="Items bought together should have all of their tensors"):
        list_together(tensors)
