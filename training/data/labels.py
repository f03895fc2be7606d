"""Labels by the kind of their task: which values are valid, and how they are coded as numbers."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from contract.arrays import Array, Mask
from contract.errors import BadData
from contract.tasks import LABEL_MAX, Task

Classes: TypeAlias = Mapping[str, tuple[str, ...]]
RawLabel: TypeAlias = float | str | None


def encode_labels(task: Task, values: Sequence[RawLabel], classes: Classes) -> Array:
    """Labels (N,) as numbers; a class that is not in `classes` is unknown. Raises `BadData` for an invalid label."""
    for value in values:
        if value is not None and (expected := find_label_error(task, value)):
            raise BadData(f"A label of `{task.name}` ({task.kind}) should be {expected}. Found {value!r}.")
    if task.kind == "multiclass":
        number = {name: index for index, name in enumerate(classes[task.name])}
        return np.array([number.get(value, -1) if isinstance(value, str) else -1 for value in values], np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float32)


def find_label_error(task: Task, value: float | str) -> str | None:
    """What a label of this task should be, or None if `value` is valid."""
    if task.kind == "multiclass":
        return None if isinstance(value, str) and value else "the name of a class"
    if isinstance(value, str) or not abs(value) <= LABEL_MAX:  # NaN is no number either
        return f"a finite number up to {LABEL_MAX:g}"
    if task.kind == "binary":
        return None if value in (0, 1) else "0 or 1"
    return None if task.kind == "regression" or 0 <= value <= 1 else "a grade from 0 to 1"


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
