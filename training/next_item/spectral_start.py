"""Item vectors from co-visitation alone: the leading eigenvectors of the matrix of positive mutual information.

To factorise it is what embeddings of neighbours in a sequence do implicitly (Levy and Goldberg 2014). It takes a second
where a network takes minutes, so the network starts from there. Randomised subspace iteration (Halko et al. 2011).
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from export.neighbours import LAG_MAX, Interactions

OVERSAMPLING: Final = 10
ITERATIONS: Final = 4
LENGTH_MIN: Final = 1e-6  # a vector below has no pairs


def find_spectral_vectors(history: Interactions, width: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors (M, width) of the items; those of items without pairs are random."""
    information = measure_information(history)
    rng, count = np.random.default_rng(seed), history.items
    rank = min(width + OVERSAMPLING, count)
    basis = rng.standard_normal((count, rank), dtype=np.float32)
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(information @ basis)
    values, rotation = np.linalg.eigh(basis.T @ (information @ basis))
    leading = np.argsort(-np.abs(values), kind="stable")[:width]
    vectors = np.zeros((count, width), np.float32)
    vectors[:, : len(leading)] = (basis @ rotation[:, leading]) * np.sqrt(np.abs(values[leading]))
    length = np.linalg.norm(vectors, axis=1)
    is_alone = length < LENGTH_MIN
    vectors[is_alone] = rng.standard_normal((int(is_alone.sum()), width), dtype=np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def measure_information(history: Interactions) -> sparse.csr_matrix:
    """Positive pointwise mutual information (M, M) of items within `LAG_MAX` steps, weighted by 1 / steps."""
    rows, columns, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for lag in range(1, min(LAG_MAX, len(history.item) - 1) + 1):
        same_user = history.user[:-lag] == history.user[lag:]
        a, b = history.item[:-lag][same_user], history.item[lag:][same_user]
        a, b = a[a != b], b[a != b]
        rows += [a, b]
        columns += [b, a]
        weights += [np.full(2 * len(a), 1 / lag)]
    entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
    pairs = sparse.csr_matrix(entries, shape=(history.items, history.items)).tocoo()
    degree = np.asarray(pairs.sum(1)).ravel()
    information = np.log(pairs.data * degree.sum() / (degree[pairs.row] * degree[pairs.col]))
    positive = np.maximum(information, 0).astype(np.float32), (pairs.row, pairs.col)
    return sparse.csr_matrix(positive, shape=pairs.shape)
