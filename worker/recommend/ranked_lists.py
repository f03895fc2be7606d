"""Many lists in a row as arrays, and the values that their items are ordered by and shown with."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import replace

from contract.messages import RecommendedItem, ScoredRow
from worker.catalogue.item_index import ItemNumbers

FLOAT32_DIGITS: Final = 7
FLOAT32_TINY: Final = 1e-30


class SelectedItems(NamedTuple):
    """The items of many lists as indexes (S,) of all candidates, with the length of each list.

    By item the rules that put it there, empty for none; of each list the places whose items are pinned.
    """

    indexes: npt.NDArray[np.int64]
    lengths: list[int]
    rules: list[str]
    pinned: list[tuple[int, ...]]


class RankedLists(NamedTuple):
    """The items of many lists, one list after the other, each best first; list n ends at `ends[n]` (exclusive)."""

    ends: list[int]
    numbers: ItemNumbers
    item_ids: list[str]
    propensities: list[float]
    items: list[RecommendedItem]
    scores: dict[str, list[float]]  # as they are logged: NaN for what is not finite
    is_by_model: bool  # whether a ranker or the graph ordered them
    rules: list[str]  # by item, empty where none acted
    pinned: list[tuple[int, ...]]  # of each list: the places whose items rules pin


def log_list(scored: ScoredRow, ranked: RankedLists, begin: int, end: int, pinned: tuple[int, ...]) -> ScoredRow:
    """The scored row of a list with its propensities, and with the rules that acted on it, if any did."""
    names = tuple(ranked.rules[begin:end])
    return replace(
        scored,
        propensities=tuple(ranked.propensities[begin:end]),
        rules=names if any(names) else UNSET,
        pinned=pinned or UNSET,
    )


def split_users(counts: Sequence[int], pairs_max: int) -> Iterator[tuple[int, int]]:
    """Spans of consecutive users (first, last exclusive) with at most `pairs_max` pairs, or with a single user."""
    first = pairs = 0
    for user, count in enumerate(counts):
        if pairs and pairs + count > pairs_max:
            yield first, user
            first, pairs = user, 0
        pairs += count
    yield first, len(counts)


def softmax(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The share of each candidate (P,) of one user: the ranker's probability that it is the next item."""
    weights = np.exp(scores - scores.max(initial=-np.inf))
    shares: npt.NDArray[np.float32] = weights / weights.sum()
    return shares


def falling_values(count: int) -> npt.NDArray[np.float32]:
    """Values (count,) from 1 down in equal steps: the first candidate is the best one."""
    return 1 - np.arange(count, dtype=np.float32) / np.float32(count)


def round_to_float32(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The values with the digits that a float32 has, so that their JSON has no more; what is not finite stays."""
    exact = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    scales = 10.0 ** (FLOAT32_DIGITS - 1 - np.floor(np.log10(np.maximum(np.abs(exact), FLOAT32_TINY))))
    return np.where(np.isfinite(values), np.round(exact * scales) / scales, values)
