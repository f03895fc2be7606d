"""Arrangement: the best first, no more of one kind than may be, and what is explored at the end."""

import numpy as np
import pytest

from contract.features.encoder import Encoder
from contract.settings import ListSettings
from tests.worker.events import FEATURES, make_product
from worker.catalogue.catalogue import Catalogue
from worker.recommend.diversity import diversify
from worker.retrieval.candidate_generator import FRESH, SOURCES, UserCandidates

CATEGORIES = ["shoes", "shoes", "shoes", "hats", None, None]


@pytest.fixture
def catalogue() -> Catalogue:
    made = Catalogue(Encoder(FEATURES))
    for n, category in enumerate(CATEGORIES):
        made.put(make_product(f"i{n}", category=category))
    return made


def arrange_candidates(catalogue: Catalogue, *, fresh: int = 0, **limits: int) -> list[int]:
    """The places of six candidates, each better than the next; the last `fresh` ones are to be explored."""
    why = np.array([SOURCES.index("neighbour")] * (6 - fresh) + [FRESH] * fresh, np.int8)
    value = np.arange(6, 0, -1).astype(np.float32)
    lists = ListSettings(length=limits.pop("length", 4), **limits)
    return diversify(value, UserCandidates(np.arange(6), why, 1.0), catalogue, lists)


def test_the_best_stand_first_as_many_as_the_list_is_long(catalogue: Catalogue) -> None:
    assert arrange_candidates(catalogue) == [0, 1, 2, 3]
    assert arrange_candidates(catalogue, length=20) == [0, 1, 2, 3, 4, 5]


def test_no_more_of_a_category_than_may_be_unless_the_list_would_be_shorter(catalogue: Catalogue) -> None:
    # items without a category are not of one kind
    assert arrange_candidates(catalogue, category_max=1) == [0, 3, 4, 5]
    assert arrange_candidates(catalogue, category_max=1, length=5) == [0, 3, 4, 5, 1]


def test_no_more_of_a_seller_than_may_be(catalogue: Catalogue) -> None:
    for n in (0, 1, 3):
        catalogue.seller[n] = catalogue.sellers.encode("s")

    assert arrange_candidates(catalogue, seller_max=2) == [0, 1, 2, 4]


def test_what_is_explored_has_the_last_places_and_pushes_out_the_worst_of_the_others(catalogue: Catalogue) -> None:
    assert arrange_candidates(catalogue, fresh=2) == [0, 1, 4, 5]
    assert arrange_candidates(catalogue, fresh=1, category_max=2) == [0, 1, 3, 5]
