"""A linear model of what users have: each item as a weighted sum of the others, in closed form.

EASE: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. Its weights take away what several items
say together, which counts of pairs do not. It inverts a matrix of items by items, hence the bound.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

ITEMS_MAX: Final = 5_000  # a matrix of 200 MB, inverted in some seconds
RIDGE: Final = 1_000.0  # of so many users is half believed


def fit_ease(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], items: int, ridge: float = RIDGE
) -> npt.NDArray[np.float64]:
    """Weights (items, items): how much having one item speaks for each other one; none for itself."""
    code = np.unique(user * items + item)
    users, user_items = np.divmod(code, items)
    gram = np.zeros((items, items))
    start = np.searchsorted(users, np.unique(users))
    for basket in np.split(user_items, start[1:]):
        gram[np.ix_(basket, basket)] += 1
    gram[np.diag_indices(items)] += ridge
    inverse = np.linalg.inv(gram)
    weights: npt.NDArray[np.float64] = -inverse / np.diag(inverse)[None, :]
    weights[np.diag_indices(items)] = 0
    return weights
