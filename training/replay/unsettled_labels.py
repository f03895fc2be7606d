"""Labels that are known too early in a history: those of events whose silence does not tell anything yet.

Where an order without a label counts as honest once its window has passed, the orders of the latest window that have a
label are nearly all fraudulent: the honest ones are not known yet. Learned as they are, they would say that fraud is
the rule, and the held-out part, which is the latest, would have nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Final

import numpy as np

from contract.arrays import Mask
from contract.joining.labels import default_negative_tasks
from contract.tasks import Task
from training.data.examples import Examples

SILENT_MIN: Final = 0.05  # below, the shop says nearly always how an order ended


def drop_unsettled_labels(
    examples: Examples, tasks: Sequence[Task], window_ms: int
) -> tuple[Examples, Mapping[str, int]]:
    """The examples without those labels, and their number by task.

    `window_ms`: after which an event without a label is a negative. A task whose labels are nearly all explicit keeps
    them all.
    """
    names = chain.from_iterable(default_negative_tasks(tasks).values())
    unsettled = {name: find_unsettled(examples, name, window_ms) for name in names}
    return drop_labels(examples, unsettled), {name: int(rows.sum()) for name, rows in unsettled.items() if rows.any()}


def find_unsettled(examples: Examples, task: str, window_ms: int) -> Mask:
    """Which rows (N,) have a label of a binary task and are later than all that silence has made negatives."""
    label, ts_ms = examples.labels[task], examples.ts_ms
    silent = find_silent(examples, task, window_ms)
    settled_ms = ts_ms[silent].max(initial=0)
    labelled = ~np.isnan(label)
    settled = labelled & (ts_ms <= settled_ms)
    if silent.sum() <= SILENT_MIN * settled.sum():
        return np.zeros(len(examples), np.bool_)
    unsettled: Mask = labelled & (ts_ms > settled_ms)
    return unsettled


def find_silent(examples: Examples, task: str, window_ms: int) -> Mask:
    """Which rows (N,) are a negative of a binary task because no label came in its window."""
    silent: Mask = (examples.labels[task] == 0) & (examples.known_ms[task] == examples.ts_ms + window_ms)
    return silent


def drop_labels(examples: Examples, dropped: Mapping[str, Mask]) -> Examples:
    """The examples without the labels of these rows (N,) of binary tasks; those that keep none are left out."""
    if not any(rows.any() for rows in dropped.values()):
        return examples
    labels, known_ms = dict(examples.labels), dict(examples.known_ms)
    for name, rows in dropped.items():
        labels[name] = np.where(rows, np.float32(np.nan), labels[name]).astype(labels[name].dtype)
        known_ms[name] = np.where(rows, 0, known_ms[name])
    return replace(examples, labels=labels, known_ms=known_ms).for_tasks(examples.tasks)
