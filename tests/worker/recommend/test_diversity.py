"""List selection: best candidates first, capped per category and seller, fresh items last."""

import numpy as np
import pytest

from contract.features.encoder import Encoder
from contract.settings.worker import ListSettings
from tests.worker.events import FEATURES, make_product
from worker.catalogue.catalogue import Catalogue
from worker.recommend.diversity import diversify
from worker.retrieval.candidate_generator import UserCandidates
from worker.retrieval.kernels import FRESH, SOURCES

CATEGORIES = ["shoes", "shoes", "shoes", "hats", None, None]


@pytest.fixture
def catalogue() -> Catalogue:
    catalogue = Catalogue(Encoder(FEATURES))
    for n, category in enumerate(CATEGORIES):
        catalogue.put(make_product(f"i{n}", category=category))
    return catalogue


def diversify_candidates(catalogue: Catalogue, *, fresh: int = 0, **limits: int) -> list[int]:
    """The selected indexes of six candidates in descending order of value, of which the last `fresh` are explored."""
    sources = np.array([SOURCES.index("neighbour")] * (6 - fresh) + [FRESH] * fresh, np.int8)
    values = np.arange(6, 0, -1).astype(np.float32)
    lists = ListSettings(length=limits.pop("length", 4), **limits)
    return diversify(values, UserCandidates(np.arange(6), sources, 1.0), catalogue, lists)


def test_a_list_has_the_best_candidates_up_to_its_length(catalogue: Catalogue) -> None:
    assert diversify_candidates(catalogue) == [0, 1, 2, 3]
    assert diversify_candidates(catalogue, length=20) == [0, 1, 2, 3, 4, 5]


def test_a_category_is_capped_unless_the_list_would_be_shorter(catalogue: Catalogue) -> None:
    # items without a category are not capped
    assert diversify_candidates(catalogue, category_max=1) == [0, 3, 4, 5]
    assert diversify_candidates(catalogue, category_max=1, length=5) == [0, 3, 4, 5, 1]


def test_the_items_of_a_seller_are_capped(catalogue: Catalogue) -> None:
    for n in (0, 1, 3):
        catalogue.seller[n] = catalogue.sellers.encode("s")

    assert diversify_candidates(catalogue, seller_max=2) == [0, 1, 2, 4]


def test_fresh_items_replace_the_worst_candidates_at_the_end(catalogue: Catalogue) -> None:
    assert diversify_candidates(catalogue, fresh=2) == [0, 1, 4, 5]
    assert diversify_candidates(catalogue, fresh=1, category_max=2) == [0, 1, 3, 5]
