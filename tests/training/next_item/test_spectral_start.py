import numpy as np

from export.neighbours import Interactions
from tests.training.next_item.planted import plant_history
from training.next_item.spectral_start import find_spectral_vectors


def test_spectral_vectors_are_equal_for_equal_seeds_and_of_unit_length() -> None:
    history = plant_history().to_interactions()
    first, second = (find_spectral_vectors(history, 32, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def test_items_of_one_basket_are_closer_than_items_that_never_meet() -> None:
    user = np.repeat(np.arange(100), 4)
    item = np.where(user % 2 == 0, np.tile(np.arange(4), 100), np.tile(np.arange(4, 8), 100))
    vectors = find_spectral_vectors(Interactions(user, item, np.arange(400), 8), 4, seed=0)
    similarity = vectors @ vectors.T
    assert similarity[:4, :4].min() > similarity[:4, 4:].max() + 0.1


def test_items_that_were_seen_alone_get_a_vector_too() -> None:
    nothing = Interactions(np.arange(3), np.arange(3), np.arange(3), 5)
    vectors = find_spectral_vectors(nothing, 8, seed=0)
    assert vectors.shape == (5, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
