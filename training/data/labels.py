"""Labels by the kind of their task: which values are valid, and how they are coded as numbers."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from contract.arrays import Array, Mask
from contract.errors import BadData
from contract.events.labels import describe_allowed, read_value
from contract.events.values import Unreadable
from contract.tasks import LABEL_MAX, Task

Classes: TypeAlias = Mapping[str, tuple[str, ...]]
RawLabel: TypeAlias = float | str | None


def read_label(task: Task, value: object) -> RawLabel:
    """A label of a table, read as that of an event; raises `BadData`."""
    if value is None:
        return None
    if isinstance(value, int | float | str) and is_valid_label(task, value):  # most are, which is faster
        return value
    try:
        return read_value(task.name, task.kind, value)
    except Unreadable as error:
        allowed = describe_allowed(task.name, task.kind)
        raise BadData(f"A label of `{task.name}` ({task.kind}) should be {allowed}. Found {value!r:.80}.") from error


def encode_labels(task: Task, values: Sequence[RawLabel], classes: Classes) -> Array:
    """Labels (N,) that were read, as numbers; a class that is not in `classes` is unknown."""
    if task.kind == "multiclass":
        number = {name: index for index, name in enumerate(classes[task.name])}
        return np.array([number.get(value, -1) if isinstance(value, str) else -1 for value in values], np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float32)


def is_valid_label(task: Task, value: float | str) -> bool:
    """Whether a label that was read is one of this task."""
    if task.kind == "multiclass":
        return isinstance(value, str) and value != ""
    if isinstance(value, str) or not abs(value) <= LABEL_MAX:  # NaN is no number either
        return False
    if task.kind == "binary":
        return value in (0, 1)
    return task.kind == "regression" or 0 <= value <= 1


def collect_classes(values: Sequence[RawLabel]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if isinstance(value, str)}))


def has_label(labels: Array) -> Mask:
    """Which rows (N,) have a label."""
    labelled: Mask = labels >= 0 if labels.dtype == np.int64 else ~np.isnan(labels)
    return labelled


def has_any_label(labels: Mapping[str, Array], rows: int) -> Mask:
    """Which rows (N,) have a label of any task."""
    labelled = np.zeros(rows, np.bool_)
    for column in labels.values():
        labelled |= has_label(column)
    return labelled
