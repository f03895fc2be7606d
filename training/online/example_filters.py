"""What an update does not learn from: examples that no honest log would hold, each counted by its reason.

What is looked at here shows in one example by itself, or in how many there are of one user. Whether the labels of all
of them together can be believed is asked by `training.online.label_checks`, and what neither finds is left to the gate.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.events import AHEAD_MS_MAX
from contract.tasks import Task
from training.data.arrays import Integers
from training.data.examples import Examples, is_empty
from training.metrics.guard import factorize

Mask = npt.NDArray[np.bool_]
NUMBER_MAX: Final = 1e18  # no count, amount, or time in milliseconds comes near
MISSING_SHARE_MAX: Final = 0.01  # the share of kept rows that may lack a group which new ones should have
USER_ROWS_MIN: Final = 100  # so many of one user are learned from, however few others there are


def filter_examples(
    examples: Examples, buffered: Examples | None, newest_ms: int, user_share: float
) -> tuple[Integers, dict[str, int]]:
    """The numbers of the rows that may be learned from, and how many of the others there are for each reason.

    `kept`: examples from before. `newest_ms`: the time of the newest record of the feedback, 0 if it is not known.
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
            left_out[reason], rows, examples = int(is_rejected.sum()), rows[~is_rejected], examples.take(~is_rejected)
    return rows, left_out


def has_extreme_values(examples: Examples) -> Mask:
    """Infinite numbers, or such as nothing in a shop comes to; NaN is a feature that is not known."""
    is_extreme = np.zeros(len(examples), np.bool_)
    for block in examples.blocks.values():
        is_extreme |= (np.abs(block.numbers) > NUMBER_MAX).any(1)
    return is_extreme


def has_missing_group(examples: Examples, buffered: Examples | None) -> Mask:
    """Rows of which a group says nothing at all that nearly always says something in kept rows of the same task."""
    is_missing = np.zeros(len(examples), np.bool_)
    for task in examples.tasks if buffered else ():
        for group in task.groups:
            if buffered and lacks_group(buffered, task, group).mean() <= MISSING_SHARE_MAX:
                is_missing |= examples.has_label(task) & is_empty(examples.blocks[group])
    return is_missing


def lacks_group(examples: Examples, task: Task, group: str) -> Mask:
    """Of the rows that have the task's label, those that lack the group; of none, that they all do."""
    rows = examples.has_label(task)
    return is_empty(examples.blocks[group])[rows] if rows.any() else np.ones(1, np.bool_)


def has_label_before_event(examples: Examples) -> Mask:
    """Rows with a label that was known before its event; clocks may be a few minutes apart."""
    is_early = np.zeros(len(examples), np.bool_)
    for task in examples.tasks:
        is_early |= examples.has_label(task) & (examples.known_ms[task.name] < examples.ts_ms - AHEAD_MS_MAX)
    return is_early


def is_in_future(examples: Examples, newest_ms: int) -> Mask:
    """Rows that happened, or whose label became known, after the newest record was written."""
    if not newest_ms:
        return np.zeros(len(examples), np.bool_)
    latest = np.maximum.reduce([examples.ts_ms, *(ms for ms in examples.known_ms.values())])
    return np.asarray(latest > newest_ms + AHEAD_MS_MAX)


def is_over_user_quota(examples: Examples, user_share: float) -> Mask:
    """The rows of a user beyond the first that are as many as the share of all others' rows, and `USER_ROWS`.

    Rows of nobody, as products are, crowd nobody out.
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
