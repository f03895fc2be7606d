"""Leaves out labels that the fit has learned: the feedback topic may hold the history that the fit read as a file.

The fit's held-out examples are later than those that it trained on, so the first update learns them. It also learns
labels of old events that came after the fit.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from model.checkpoint import LearnedUntil
from training.data.labels import has_any_label
from training.data.learned_until import is_learned
from training.online.new_labels import NewLabels

LEARNED: Final = "learned by the fit"


def drop_learned(new: NewLabels, learned: Mapping[str, LearnedUntil]) -> tuple[NewLabels, dict[str, int]]:
    """The examples with the labels that the fit has not learned, and the number of those without any by reason."""
    if not learned or not len(new):
        return new, {}
    examples, labels = new.examples, dict(new.examples.labels)
    for task, label in labels.items():
        unknown = -1 if label.dtype == np.int64 else np.nan
        labels[task] = np.where(is_learned(examples, task, learned), unknown, label).astype(label.dtype)
    kept = has_any_label(labels, len(examples))
    dropped = int((~kept).sum())
    return NewLabels(examples.with_labels(labels), new.new_since_ms).take(kept), {LEARNED: dropped} if dropped else {}
