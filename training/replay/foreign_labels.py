"""Labels of a history that name another user than their event: what they say is joined to nothing.

A label does not judge the event of another user, here as in the joiner. But its event is not one without a label
either: as the negative that silence means after the window, a fraud would be learned as honest.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np

from contract.joining.labels import default_negative_tasks
from contract.joining.output import ForeignLabel
from contract.tasks import Task
from training.data.examples import Examples
from training.replay.unsettled_labels import drop_labels, find_silent

SHOWN: Final = 3


def drop_foreign_negatives(
    examples: Examples, foreign: Sequence[ForeignLabel], tasks: Sequence[Task], window_ms: int
) -> Examples:
    """The examples without the negatives by silence of events that a label of another user judges; others stay.

    `window_ms`: after which an event without a label is a negative.
    """
    judged = {name: {label.row_id for label in foreign if label.task == name} for name in list_silent_tasks(tasks)}
    dropped = {
        name: find_silent(examples, name, window_ms) & np.array([ident in ids for ident in examples.event_id], np.bool_)
        for name, ids in judged.items()
        if ids
    }
    return drop_labels(examples, dropped)


def list_silent_tasks(tasks: Sequence[Task]) -> Iterator[str]:
    """The names of the tasks for which silence means a negative."""
    return chain.from_iterable(default_negative_tasks(tasks).values())


def describe_foreign(foreign: Sequence[ForeignLabel]) -> Iterator[str]:
    """A sentence for each task, with the first labels."""
    for task in sorted({label.task for label in foreign}):
        labels = [label for label in foreign if label.task == task]
        shown = ", ".join(f"{label.event_id} of {label.row_id}" for label in labels[:SHOWN])
        yield (
            f"{len(labels)} labels of `{task}` should have the user of the event that they judge. Found another one: "
            f"{shown}. They are not joined, and their events do not count as negatives."
        )
