"""EASE: a linear model of baskets, each item as a weighted sum of the others, in closed form.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. Unlike counts of pairs, its weights discount
what several items predict together. It inverts a matrix of items by items, hence the bound.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

ITEMS_MAX: Final = 5_000  # a matrix of 200 MB, inverted in some seconds
RIDGE: Final = 1_000.0  # regularisation: evidence of this many users has half its weight


def fit_ease(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], items: int, ridge: float = RIDGE
) -> npt.NDArray[np.float64]:
    """Weights (items, items) by which having one item predicts each other one; 0 on the diagonal."""
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
