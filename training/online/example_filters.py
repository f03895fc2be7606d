"""Filters of implausible examples: those that a correct log cannot contain. Each is counted by its reason.

A filter looks at one example alone, or at the number of examples of one user. `training.online.label_checks` checks the
labels of an update as a whole, and the promotion gate its result.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from contract.arrays import Integers, Mask
from contract.events.model import AHEAD_MS_MAX
from contract.tasks import Task
from training.data.codes import factorize
from training.data.examples import Examples, is_empty

NUMBER_MAX: Final = 1e18  # far above any count, amount or time in milliseconds
MISSING_SHARE_MAX: Final = 0.01  # of replayed rows without a group, for new rows to be required to have it
USER_ROWS_MIN: Final = 100  # rows that each user may have, however few rows others have


def filter_examples(
    examples: Examples, buffered: Examples | None, newest_ms: int, user_share: float
) -> tuple[Integers, dict[str, int]]:
    """The indices of the rows to learn, and the number of filtered rows by reason.

    `buffered`: the examples of the replay buffer. `newest_ms`: the time of the newest feedback record, 0 if unknown.
    """
    checks: dict[str, Callable[[Examples], Mask]] = {
        "of absurd features": has_extreme_values,
        "without features": lambda remaining: has_missing_group(remaining, buffered),
        "known before they happened": has_label_before_event,
        "from the future": lambda remaining: is_in_future(remaining, newest_ms),
        "too many of one user": lambda remaining: is_over_user_quota(remaining, user_share),
    }
    rows, left_out = np.arange(len(examples)), dict[str, int]()
    for reason, check in checks.items():
        is_rejected = check(examples)
        if is_rejected.any():
            left_out[reason] = int(is_rejected.sum())
            rows = rows[~is_rejected]
            examples = examples.take(~is_rejected)
    return rows, left_out


def has_extreme_values(examples: Examples) -> Mask:
    """Rows with infinite or impossibly large numbers; NaN is an unknown feature and passes."""
    is_extreme = np.zeros(len(examples), np.bool_)
    for block in examples.blocks.values():
        is_extreme |= (np.abs(block.numbers) > NUMBER_MAX).any(1)
    return is_extreme


def has_missing_group(examples: Examples, buffered: Examples | None) -> Mask:
    """Rows without a feature group that nearly all replayed rows of the same task have."""
    is_missing = np.zeros(len(examples), np.bool_)
    if buffered is None or not len(buffered):
        return is_missing
    for task in examples.tasks:
        for group in task.groups:
            if lacks_group(buffered, task, group).mean() <= MISSING_SHARE_MAX:
                is_missing |= examples.has_label(task) & is_empty(examples.blocks[group])
    return is_missing


def lacks_group(examples: Examples, task: Task, group: str) -> Mask:
    """Which of the rows with the task's label lack the group (M,); one true value if there are no such rows."""
    rows = examples.has_label(task)
    return is_empty(examples.blocks[group])[rows] if rows.any() else np.ones(1, np.bool_)


def has_label_before_event(examples: Examples) -> Mask:
    """Rows with a label that was known before the event, beyond the tolerated clock difference."""
    is_early = np.zeros(len(examples), np.bool_)
    for task in examples.tasks:
        is_early |= examples.has_label(task) & (examples.known_ms[task.name] < examples.ts_ms - AHEAD_MS_MAX)
    return is_early


def is_in_future(examples: Examples, newest_ms: int) -> Mask:
    """Rows whose event or label is later than the newest feedback record."""
    if not newest_ms:
        return np.zeros(len(examples), np.bool_)
    latest = np.maximum.reduce([examples.ts_ms, *examples.known_ms.values()])
    return np.asarray(latest > newest_ms + AHEAD_MS_MAX)


def is_over_user_quota(examples: Examples, user_share: float) -> Mask:
    """Rows of a user beyond the quota: the given share of all other users' rows, at least `USER_ROWS_MIN`.

    Rows without a user, such as products, have no quota.
    """
    is_over = np.zeros(len(examples), np.bool_)
    if not len(examples):
        return is_over
    user_number = factorize(examples.user_id)
    counts = np.bincount(user_number)
    for user in np.flatnonzero(counts > USER_ROWS_MIN):
        rows = np.flatnonzero(user_number == user)
        quota = max(USER_ROWS_MIN, int(user_share * (len(examples) - len(rows))))
        is_over[rows[quota:]] = bool(examples.user_id[rows[0]])
    return is_over
