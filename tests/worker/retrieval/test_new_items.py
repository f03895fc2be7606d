"""Items that are newer than the bundle: they are found by what items of their groups have in common."""

import numpy as np
import pytest

from tests.worker.events import make_product
from tests.worker.retrieval.test_next_item import NextItemHarness

SIMILARITY_UNIT = 3.0  # of the feature


@pytest.fixture
def harness() -> NextItemHarness:
    """A bundle of i0 to i3, vectors at right angles; i0 and i1 are shoes of two brands, i2 and i3 hats of one."""
    harness = NextItemHarness()
    for item, category, brand in (("i0", "shoes", "a"), ("i1", "shoes", "b"), ("i2", "hats", "c"), ("i3", "hats", "c")):
        harness.catalogue.put(make_product(item, category=category, brand=brand))
    return harness


def put(harness: NextItemHarness, item: str, category: str = "", brand: str = "") -> None:
    harness.catalogue.put(make_product(item, category=category or None, brand=brand or None))
    harness.source.refresh()


def find_by_vector(harness: NextItemHarness, *history: str, bought: tuple[str, ...] = ()) -> list[str]:
    return [item for item, source in harness.rank(*history, bought=bought) if source == "vector"]


def similarity(harness: NextItemHarness, item: str, *history: str) -> float:
    """The score of a new item for a user with this history: the tiny ranker's is the similarity."""
    (candidates,) = harness.generate(history)
    assert candidates.scores is not None
    (place,) = np.flatnonzero(candidates.numbers == harness.catalogue.find([item])[0])
    return float(candidates.scores[place]) / SIMILARITY_UNIT


def test_a_new_item_is_found_by_users_who_like_its_category(harness: NextItemHarness) -> None:
    put(harness, "new", "shoes")

    assert "new" in find_by_vector(harness, "i0")
    # and its similarity is the mean of those of the shoes: 1 and 0
    assert similarity(harness, "new", "i0") == pytest.approx(0.5)
    assert similarity(harness, "new", "i2") == pytest.approx(0.0)


def test_category_and_brand_count_alike(harness: NextItemHarness) -> None:
    put(harness, "new", "shoes", "c")

    assert similarity(harness, "new", "i0") == pytest.approx(0.25)
    assert similarity(harness, "new", "i3") == pytest.approx(0.25)


def test_a_group_that_no_item_of_the_bundle_has_says_nothing(harness: NextItemHarness) -> None:
    put(harness, "new", "shoes", "unheard of")
    put(harness, "other", "scarves")

    assert similarity(harness, "new", "i0") == pytest.approx(0.5)
    assert "other" not in find_by_vector(harness, "i0")


def test_a_new_item_that_changes_its_category_moves(harness: NextItemHarness) -> None:
    put(harness, "new", "shoes")
    put(harness, "new", "hats")

    assert similarity(harness, "new", "i0") == pytest.approx(0.0)
    assert similarity(harness, "new", "i2") == pytest.approx(0.5)


def test_new_items_that_are_bought_sold_out_or_delisted_are_not_found(harness: NextItemHarness) -> None:
    for item in ("bought", "sold out", "delisted", "new"):
        put(harness, item, "shoes")
    harness.catalogue.put(make_product("sold out", category="shoes", stock=0))
    harness.catalogue.delist("delisted")
    harness.source.refresh()

    new_items = {*find_by_vector(harness, "i0", bought=("bought",))}
    assert new_items & {"bought", "sold out", "delisted", "new"} == {"new"}


def test_new_items_come_one_after_the_other_and_known_ones_keep_their_places(harness: NextItemHarness) -> None:
    before = [item for item, _ in harness.rank("i0", "i1")]
    for n in range(30):
        put(harness, f"new{n}", ("shoes", "hats", "scarves")[n % 3])

    after = harness.rank("i0", "i1")
    assert [item for item, _ in after if item in before] == before
    assert {item for item, source in after if source == "vector"} >= {f"new{n}" for n in range(0, 30, 3)}
