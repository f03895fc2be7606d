"""Candidates of held-out cases: strongest neighbours, nearest vectors, own and popular items."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.arrays import Array, Integers, Mask
from contract.retrieval.features import HISTORY_MAX, build_features
from contract.retrieval.item_table import ItemTable
from contract.retrieval.strengths import select_strongest
from training.next_item.histories import Cases, take_parts

PER_SOURCE: Final = 80
OWN_MAX: Final = 10  # latest own items
POPULAR_MAX: Final = 20
CHUNK_CASES: Final = 500


@dataclass(frozen=True, slots=True)
class RankedCases:
    """Candidates (P,) of C cases, of which those in [starts[c], starts[c + 1]) are of case c, in the sources' order.

    features (P, F). weights (P,): of the targets among them, else 0. target_counts (C,): with those that are not among
    them.
    """

    items: Integers
    starts: Integers
    features: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    target_counts: Integers

    def __len__(self) -> int:
        return len(self.target_counts)

    def take(self, cases: Integers) -> "RankedCases":
        pairs, starts = take_parts(self.starts, cases)
        return RankedCases(
            self.items[pairs],
            starts,
            self.features[pairs],
            self.weights[pairs],
            self.target_counts[cases],
        )


def find_candidates(
    table: ItemTable, popular: Integers, cases: Cases, users: npt.NDArray[np.float32], *, new_items_only: bool
) -> RankedCases:
    """The candidates of all cases with their features. `users` (C, d): vectors of the sequence network."""
    parts = [np.arange(begin, min(begin + CHUNK_CASES, len(cases))) for begin in range(0, len(cases), CHUNK_CASES)]
    chunks = [find_chunk(table, popular, cases.take(part), users[part], new_items_only) for part in parts]
    lengths = np.concatenate([np.zeros(0, np.int64), *(np.diff(chunk.starts) for chunk in chunks)])
    return RankedCases(
        np.concatenate([chunk.items for chunk in chunks]),
        np.append(0, np.cumsum(lengths)).astype(np.int64),
        np.concatenate([chunk.features for chunk in chunks]),
        np.concatenate([chunk.weights for chunk in chunks]),
        np.diff(cases.starts),
    )


def find_chunk(
    table: ItemTable, popular: Integers, cases: Cases, users: npt.NDArray[np.float32], new_items_only: bool
) -> RankedCases:
    items = len(table.vectors)
    is_excluded = mark(cases.excluded, cases.excluded_starts, items)
    sources = [
        select_strongest(cases.rows, tuple(neighbours), HISTORY_MAX, cases.excluded, cases.excluded_starts, PER_SOURCE)
        for neighbours in (table.neighbours, table.other_neighbours)
    ]
    sources.append(find_nearest(table.vectors, users, is_excluded))
    if not new_items_only:
        sources.append(cases.rows[:, :OWN_MAX])
    sources.append(np.tile(popular[:POPULAR_MAX].astype(np.int64), (len(cases), 1)))
    candidates = np.concatenate(sources, axis=1)
    is_kept = mark_first(candidates, items) & (candidates >= 0)
    is_kept &= ~np.take_along_axis(is_excluded, np.maximum(candidates, 0), 1)
    chosen, starts = candidates[is_kept], np.append(0, np.cumsum(is_kept.sum(1))).astype(np.int64)
    weight = np.zeros((len(cases), items), np.float32)
    case_of_target = np.repeat(np.arange(len(cases)), np.diff(cases.starts))
    weight[case_of_target, cases.targets] = cases.weights
    return RankedCases(
        chosen,
        starts,
        build_features(table, cases.rows, users, chosen, starts),
        np.take_along_axis(weight, np.maximum(candidates, 0), 1)[is_kept],
        np.diff(cases.starts),
    )


def mark(rows: Integers, starts: Integers, items: int) -> Mask:
    """Which items (C, M) are among the rows of each case."""
    marked = np.zeros((len(starts) - 1, items), np.bool_)
    marked[np.repeat(np.arange(len(starts) - 1), np.diff(starts)), rows] = True
    return marked


def mark_first(candidates: Integers, items: int) -> Mask:
    """Where a candidate of a case (C, W) stands for the first time."""
    order = np.argsort(candidates, axis=1, kind="stable")
    ordered = np.take_along_axis(candidates, order, 1)
    is_new = np.ones(ordered.shape, np.bool_)
    is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    is_first = np.zeros(ordered.shape, np.bool_)
    np.put_along_axis(is_first, order, is_new, 1)
    return is_first


def find_nearest(vectors: npt.NDArray[np.float32], users: npt.NDArray[np.float32], is_excluded: Mask) -> Array:
    """The rows (C, k) of the items whose vectors are closest to those of the users, closest first; -1 for none."""
    similarity = np.where(is_excluded, -np.inf, users @ vectors.T)
    count = min(PER_SOURCE, len(vectors))
    nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    closeness = np.take_along_axis(similarity, nearest, 1)
    order = np.lexsort((nearest, -closeness), axis=1)
    return np.take_along_axis(np.where(np.isfinite(closeness), nearest, -1), order, 1)
