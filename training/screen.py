"""What an update does not learn from: examples that no honest log would hold, each counted by its reason.

What is looked at here shows in one example by itself, or in how many there are of one user. Whether the labels of all
of them together can be believed is asked by `training.doubts`, and what neither finds is left to the gate.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.events import AHEAD_MS_MAX
from contract.tasks import Task
from training.examples import Examples, Integers, is_empty
from training.metrics import numbered

Mask = npt.NDArray[np.bool_]
NUMBER_MAX: Final = 1e18  # no count, amount, or time in milliseconds comes near
SILENT_MAX: Final = 0.01  # the share of kept rows that may lack a group which new ones should have
USER_ROWS: Final = 100  # so many of one user are learned from, however few others there are


def screened(
    examples: Examples, kept: Examples | None, newest_ms: int, user_share: float
) -> tuple[Integers, dict[str, int]]:
    """The numbers of the rows that may be learned from, and how many of the others there are for each reason.

    `kept`: examples from before. `newest_ms`: the time of the newest record of the feedback, 0 if it is not known.
    """
    checks: dict[str, Callable[[Examples], Mask]] = {
        "of absurd features": absurd,
        "without features": lambda rest: featureless(rest, kept),
        "known before they happened": foreseen,
        "from the future": lambda rest: ahead(rest, newest_ms),
        "too many of one user": lambda rest: crowding(rest, user_share),
    }
    rows, left_out = np.arange(len(examples)), dict[str, int]()
    for why, check in checks.items():
        wrong = check(examples)
        if wrong.any():
            left_out[why], rows, examples = int(wrong.sum()), rows[~wrong], examples.take(~wrong)
    return rows, left_out


def absurd(examples: Examples) -> Mask:
    """Infinite numbers, or such as nothing in a shop comes to; NaN is a feature that is not known."""
    found = np.zeros(len(examples), np.bool_)
    for block in examples.blocks.values():
        found |= (np.abs(block.numbers) > NUMBER_MAX).any(1)
    return found


def featureless(examples: Examples, kept: Examples | None) -> Mask:
    """Rows of which a group says nothing at all that nearly always says something in kept rows of the same task."""
    found = np.zeros(len(examples), np.bool_)
    for task in examples.tasks if kept else ():
        for group in task.groups:
            if kept and silence(kept, task, group).mean() <= SILENT_MAX:
                found |= examples.known(task) & is_empty(examples.blocks[group])
    return found


def silence(examples: Examples, task: Task, group: str) -> Mask:
    """Of the rows that have the task's label, those that lack the group; of none, that they all do."""
    rows = examples.known(task)
    return is_empty(examples.blocks[group])[rows] if rows.any() else np.ones(1, np.bool_)


def foreseen(examples: Examples) -> Mask:
    """Rows with a label that was known before its event; clocks may be a few minutes apart."""
    found = np.zeros(len(examples), np.bool_)
    for task in examples.tasks:
        found |= examples.known(task) & (examples.known_ms[task.name] < examples.ts_ms - AHEAD_MS_MAX)
    return found


def ahead(examples: Examples, newest_ms: int) -> Mask:
    """Rows that happened, or whose label became known, after the newest record was written."""
    if not newest_ms:
        return np.zeros(len(examples), np.bool_)
    latest = np.maximum.reduce([examples.ts_ms, *(ms for ms in examples.known_ms.values())])
    return np.asarray(latest > newest_ms + AHEAD_MS_MAX)


def crowding(examples: Examples, user_share: float) -> Mask:
    """The rows of a user beyond the first that are as many as the share of all others' rows, and `USER_ROWS`.

    Rows of nobody, as products are, crowd nobody out.
    """
    found = np.zeros(len(examples), np.bool_)
    if not len(examples):
        return found
    number = numbered(examples.user_id)
    counts = np.bincount(number)
    for one in np.flatnonzero(counts > USER_ROWS):
        rows = np.flatnonzero(number == one)
        most = max(USER_ROWS, int(user_share * (len(examples) - len(rows))))
        found[rows[most:]] = bool(examples.user_id[rows[0]])
    return found
