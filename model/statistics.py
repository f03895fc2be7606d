"""What is counted in the training part before the network learns: bounds, scales, table sizes and base rates.

It travels inside the network (as buffers, as table sizes, as first biases), so the worker cannot get any of it wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.features import Block, Feature, FeatureSet
from contract.tasks import Task

CLIPPED_SHARE: Final = 0.01  # of the distinct values at either end; of all values it would clip rare counts away
SKEWED: Final = 1.0  # beyond this skewness a signed logarithm is tried
ROWS_MIN: Final = 64
SHARE_MIN: Final = 1e-4  # a base rate is taken as at least so far from 0 and 1


class NumberStatistics(Struct, frozen=True):
    """One number feature: clipping bounds, then mean and deviation after the logarithm, if it has one."""

    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False
    mean: float = 0.0
    deviation: float = 1.0


class Statistics(Struct, frozen=True, kw_only=True):
    """Everything that is counted, never learned by gradient. Groups and tasks by name."""

    numbers: dict[str, tuple[NumberStatistics, ...]]  # group -> its number features in order
    rows: dict[str, int]  # embedding table -> its rows
    start: dict[str, tuple[float, ...]]  # task -> the first bias of its outputs
    scale: dict[str, tuple[float, float]]  # regression task -> mean and deviation of its labels
    classes: dict[str, tuple[str, ...]]  # multiclass task -> its classes in order


def table_of(feature: Feature) -> str:
    """The embedding table of an id feature: texts share one, since a word has one hash wherever it stands."""
    return "text" if feature.kind == "text" else feature.name


def measure(
    features: FeatureSet,
    blocks: Mapping[str, Block],
    labels: Mapping[str, npt.NDArray[np.generic]],
    tasks: Sequence[Task],
    classes: Mapping[str, tuple[str, ...]],
    rows_max: int,
) -> Statistics:
    """Statistics of a training part: blocks of N rows, labels (N,) NaN or -1 where unknown."""
    return Statistics(
        numbers={
            group: tuple(measure_number(block.numbers[:, at]) for at in range(block.numbers.shape[1]))
            for group, block in blocks.items()
        },
        rows=table_rows(features, blocks, rows_max),
        start=first_biases(tasks, labels, classes),
        scale={t.name: scale(labels[t.name]) for t in tasks if t.kind == "regression"},
        classes={t.name: classes[t.name] for t in tasks if t.kind == "multiclass"},
    )


def measure_number(column: npt.NDArray[np.float32]) -> NumberStatistics:
    """Bounds, scale and whether a logarithm makes the values less skewed, from those that are finite."""
    values = column[np.isfinite(column)].astype(np.float64)
    if not len(values):
        return NumberStatistics()
    distinct = np.unique(values)
    low = float(np.quantile(distinct, CLIPPED_SHARE, method="lower"))
    high = float(np.quantile(distinct, 1 - CLIPPED_SHARE, method="higher"))
    values = values.clip(low, high)
    logs = np.sign(values) * np.log1p(np.abs(values))
    logarithmic = abs(skewness(values)) > max(SKEWED, 1.25 * abs(skewness(logs)))
    mean, deviation = scale(logs if logarithmic else values)
    return NumberStatistics(low, high, logarithmic, mean, deviation)


def skewness(values: npt.NDArray[np.float64]) -> float:
    deviation = values.std()
    return float((((values - values.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


def scale(values: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Mean and deviation of the values that are known; a constant has deviation 1."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def table_rows(features: FeatureSet, blocks: Mapping[str, Block], rows_max: int) -> dict[str, int]:
    """About four rows for each distinct id, as a power of two, within bounds; tables in the order of features."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {}
    for group, block in blocks.items():
        for span in features.spans(group):
            ids = np.unique(block.ids[:, span.start : span.start + span.width])
            found.setdefault(table_of(span.feature), []).append(ids)
    sizes = {table: len(np.unique(np.concatenate(ids))) for table, ids in found.items()}
    return {table: min(max(ROWS_MIN, 1 << (4 * size - 1).bit_length()), rows_max) for table, size in sizes.items()}


def first_biases(
    tasks: Sequence[Task], labels: Mapping[str, npt.NDArray[np.generic]], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[float, ...]]:
    """What each tower says before it has learned: base rates, as logits; given the task it goes through, if any."""
    start: dict[str, tuple[float, ...]] = {}
    for task in tasks:
        label = labels[task.name]
        if task.kind == "multiclass":
            known = label.astype(np.int64)
            counts = np.bincount(known[known >= 0], minlength=len(classes[task.name])) + 1.0
            start[task.name] = tuple(np.log(counts / counts.sum()).tolist())
        elif task.kind == "regression":
            start[task.name] = (0.0,)
        else:
            before = rate(labels[task.through]) if task.through else 1.0
            share = float(np.clip(rate(label) / before, SHARE_MIN, 1 - SHARE_MIN))
            start[task.name] = (float(np.log(share / (1 - share))),)
    return start


def rate(label: npt.NDArray[np.generic]) -> float:
    """The mean of the labels that are known, at least `SHARE_MIN`."""
    return max(scale(label)[0], SHARE_MIN)
