"""What a fit has learned, by time: labels of events and of arrivals no later than the latest that it trained on."""

from collections.abc import Mapping

import numpy as np

from contract.arrays import Mask
from model.checkpoint import LearnedUntil
from training.data.examples import Examples
from training.data.labels import has_label


def measure_learned(training: Examples) -> dict[str, LearnedUntil]:
    """By task, the latest event and the latest label of the training part; examples without times give nothing."""
    learned = dict[str, LearnedUntil]()
    for task in training.tasks:
        rows = training.has_label(task)
        latest_ms = int(training.ts_ms[rows].max(initial=0))
        if latest_ms > 0:
            known_ms = int(training.known_ms[task.name][rows].max(initial=0))
            learned[task.name] = LearnedUntil(ts_ms=latest_ms, known_ms=max(known_ms, latest_ms))
    return learned


def merge_learned(former: Mapping[str, LearnedUntil], latter: Mapping[str, LearnedUntil]) -> dict[str, LearnedUntil]:
    """The later times of each task."""
    merged = dict(former)
    for task, until in latter.items():
        other = merged.get(task, until)
        merged[task] = LearnedUntil(ts_ms=max(until.ts_ms, other.ts_ms), known_ms=max(until.known_ms, other.known_ms))
    return merged


def is_learned(examples: Examples, task: str, learned: Mapping[str, LearnedUntil]) -> Mask:
    """Which rows (N,) have a label of the task that the fit has learned."""
    if task not in learned:
        return np.zeros(len(examples), np.bool_)
    until = learned[task]
    is_old: Mask = (examples.ts_ms <= until.ts_ms) & (examples.known_ms[task] <= until.known_ms)
    return is_old & has_label(examples.labels[task])
