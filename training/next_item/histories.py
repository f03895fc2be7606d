"""Interactions by user and time, and what a model may know of them: the hold-out by time, and its cases."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.arrays import Array, Integers, Mask
from contract.retrieval.features import HISTORY_MAX
from contract.retrieval.item_table import Rows
from contract.units import DAY_MS
from export.neighbours import Interactions

HOLDOUT_SHARE: Final = 0.1  # the latest share of the time
RECENT_SHARE: Final = 0.1  # the share of the time that counts as recent
CASES_MAX: Final = 20_000


@dataclass(frozen=True, slots=True)
class History:
    """N interactions by user and time: numbers of users and items, times, and actions (1 click, 2 cart, 3 order).

    `names` (M,): the ids of the items in UTF-8. `has_times`: else `ts_ms` only orders the interactions of each user.
    """

    user: Integers
    item: Integers
    ts_ms: Integers
    action: npt.NDArray[np.int8]
    names: npt.NDArray[np.bytes_]
    has_times: bool = True

    def __len__(self) -> int:
        return len(self.user)

    def select(self, mask: Mask | Integers) -> "History":
        return History(
            self.user[mask], self.item[mask], self.ts_ms[mask], self.action[mask], self.names, self.has_times
        )

    def to_interactions(self) -> Interactions:
        return Interactions(self.user, self.item, self.ts_ms, len(self.names))

    def count_items(self) -> Integers:
        return np.bincount(self.item, minlength=len(self.names))

    def count_recent(self) -> Integers:
        """The interactions of each item in the last tenth of the time; of all of it if times are unknown."""
        if not self.has_times or not len(self):
            return self.count_items()
        is_recent = self.ts_ms >= np.quantile(self.ts_ms, 1 - RECENT_SHARE)
        return np.bincount(self.item[is_recent], minlength=len(self.names))


@dataclass(frozen=True, slots=True)
class Cases:
    """C times at which users with a history did something: what they had done before, and the items that followed.

    rows (C, L): items before, newest first, -1 for none; actions (C, L) and ages (C, L) in days. user (C,).
    targets (T,), of which those in [starts[c], starts[c + 1]) are of case c, with their weights (T,).
    excluded (E,), excluded_starts: items that do not count as answers.
    """

    rows: Rows
    actions: Integers
    ages: npt.NDArray[np.float32]
    user: Integers
    targets: Integers
    weights: npt.NDArray[np.float32]
    starts: Integers
    excluded: Integers
    excluded_starts: Integers

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Integers) -> "Cases":
        """The chosen cases (c,), in this order."""
        targets, starts = take_parts(self.starts, chosen)
        excluded, excluded_starts = take_parts(self.excluded_starts, chosen)
        return Cases(
            rows=self.rows[chosen],
            actions=self.actions[chosen],
            ages=self.ages[chosen],
            user=self.user[chosen],
            targets=self.targets[targets],
            weights=self.weights[targets],
            starts=starts,
            excluded=self.excluded[excluded],
            excluded_starts=excluded_starts,
        )


def take_parts(starts: Integers, chosen: Integers) -> tuple[Integers, Integers]:
    """The positions of chosen parts of an array, of which part n is in [starts[n], starts[n + 1]), and their starts."""
    lengths = np.diff(starts)[chosen]
    taken = np.append(0, np.cumsum(lengths)).astype(np.int64)
    return np.arange(taken[-1]) + np.repeat(starts[chosen] - taken[:-1], lengths), taken


def split_by_time(history: History) -> Mask:
    """Which interactions are held out (N,): those of the latest time; without times, the last one of each user."""
    if not history.has_times:
        is_last = np.append(history.user[1:] != history.user[:-1], True)[: len(history)]
        has_earlier = np.append(False, history.user[1:] == history.user[:-1])[: len(history)]
        return np.asarray(is_last & has_earlier)
    return np.asarray(history.ts_ms >= np.quantile(history.ts_ms, 1 - HOLDOUT_SHARE))


def build_cases(
    history: History, is_held_out: Mask, *, new_items_only: bool, seed: int, is_known: Mask | None = None
) -> Cases:
    """The cases of the held-out interactions, at most `CASES_MAX`, drawn by the seed.

    Interactions of one user at one time are one case. `new_items_only`: items that the user had do not count. Items
    that are not known (M,) do not count either; by default those of the time before are known.
    """
    if is_known is None:
        is_known = history.select(~is_held_out).count_items() > 0
    user_begin = np.searchsorted(history.user, history.user)  # where the user's interactions begin
    is_first = np.append(True, (np.diff(history.user) != 0) | (np.diff(history.ts_ms) != 0))[: len(history)]
    begins = np.flatnonzero(is_first & is_held_out & (user_begin < np.arange(len(history))))
    ends = np.append(np.flatnonzero(is_first), len(history))
    ends = ends[np.searchsorted(ends, begins, side="right")]
    order = np.random.default_rng(seed).permutation(len(begins))
    builder = CaseBuilder(history, is_known, new_items_only)
    for case in order.tolist():
        builder.add(int(user_begin[begins[case]]), int(begins[case]), int(ends[case]))
        if len(builder.rows) == CASES_MAX:
            break
    return builder.build()


class CaseBuilder:
    """Collects cases; those without any target that counts are left out."""

    def __init__(self, history: History, is_known: Mask, new_items_only: bool) -> None:
        self._history, self._is_known, self._new_items_only = history, is_known, new_items_only
        self.rows: list[Array] = []
        self._actions: list[Array] = []
        self._ages: list[Array] = []
        self._users: list[int] = []
        self._targets: list[Array] = []
        self._weights: list[Array] = []
        self._excluded: list[Array] = []

    def add(self, user_begin: int, begin: int, end: int) -> None:
        """Add the case of the interactions in [begin, end), whose user's history begins at `user_begin`."""
        history = self._history
        before = history.item[user_begin:begin]
        owned = np.unique(before) if self._new_items_only else np.zeros(0, np.int64)
        targets, first = np.unique(history.item[begin:end], return_index=True)
        counts = self._is_known[targets] & ~np.isin(targets, owned)
        if not counts.any():
            return
        latest = slice(max(user_begin, begin - HISTORY_MAX), begin)
        newest_first = history.item[latest][::-1]
        self.rows.append(pad(np.where(self._is_known[newest_first], newest_first, -1), -1))
        self._actions.append(pad(history.action[latest][::-1].astype(np.int64), 0))
        self._ages.append(pad((history.ts_ms[begin] - history.ts_ms[latest][::-1]) / DAY_MS, 0.0))
        self._users.append(int(history.user[begin]))
        self._targets.append(targets[counts])
        self._weights.append(weigh_actions(history.action[begin:end][first[counts]]))
        self._excluded.append(owned)

    def build(self) -> Cases:
        starts = np.cumsum([0, *map(len, self._targets)])
        excluded_starts = np.cumsum([0, *map(len, self._excluded)])
        no_items = [np.zeros(0, np.int64)]
        return Cases(
            rows=np.array(self.rows, np.int64).reshape(-1, HISTORY_MAX),
            actions=np.array(self._actions, np.int64).reshape(-1, HISTORY_MAX),
            ages=np.array(self._ages, np.float32).reshape(-1, HISTORY_MAX),
            user=np.array(self._users, np.int64),
            targets=np.concatenate(no_items + self._targets),
            weights=np.concatenate([np.zeros(0, np.float32), *self._weights]).astype(np.float32),
            starts=starts.astype(np.int64),
            excluded=np.concatenate(no_items + self._excluded),
            excluded_starts=excluded_starts.astype(np.int64),
        )


def pad(values: Array, filler: float) -> Array:
    return np.pad(values, (0, HISTORY_MAX - len(values)), constant_values=filler)


def weigh_actions(action: Array) -> npt.NDArray[np.float32]:
    """How much each positive counts: a click 1, a cart 2, an order 3."""
    return np.maximum(action, 1).astype(np.float32)
