"""Statistics of the training part, computed before training: bounds, scales, vocabularies and base rates.

They become part of the network (as buffers, table sizes and first biases), so that the worker need not know them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.features.declaration import Block, Feature, FeatureSet
from contract.tasks import Task
from model.vocabulary import KnownIds, select_known_ids

# Clipped at either end, by the wider of the quantiles of distinct values and of all values: those of all values would
# clip rare counts, those of distinct values a 0 that most rows have.
CLIPPED_SHARE: Final = 0.01
SKEWNESS_MAX: Final = 1.0  # above this skewness a signed logarithm is tried
SHARE_MIN: Final = 1e-4  # base rates are clipped to this distance from 0 and 1


class NumberStatistics(Struct, frozen=True):
    """One number column: clipping bounds, and mean and deviation, after the logarithm if there is one."""

    low: float = 0.0
    high: float = 0.0
    logarithmic: bool = False
    mean: float = 0.0
    deviation: float = 1.0
    bins: tuple[float, ...] = ()  # ascending edges from bound to bound; empty: no bins


class FeatureStatistics(Struct, frozen=True, kw_only=True):
    """All statistics of a training part, by group, table or task."""

    numbers: dict[str, tuple[NumberStatistics, ...]]  # group -> its number columns in order, those of vectors last
    known: dict[str, KnownIds]  # embedding table -> its vocabulary
    start: dict[str, tuple[float, ...]]  # task -> the first bias of its outputs
    scale: dict[str, tuple[float, float]]  # regression task -> mean and deviation of its labels
    classes: dict[str, tuple[str, ...]]  # multiclass task -> its classes in order


def table_name(feature: Feature) -> str:
    """The embedding table of an id feature; texts share one, since a word has the same hash in all of them."""
    return "text" if feature.kind == "text" else feature.name


def measure(
    features: FeatureSet,
    blocks: Mapping[str, Block],
    labels: Mapping[str, npt.NDArray[np.generic]],
    tasks: Sequence[Task],
    classes: Mapping[str, tuple[str, ...]],
    rows_max: int,
    bins: int = 0,
) -> FeatureStatistics:
    """Statistics of a training part: blocks of N rows, labels (N,) NaN or -1 where unknown; `bins` of each number."""
    return FeatureStatistics(
        numbers={
            group: (
                *(measure_number(block.numbers[:, number], bins) for number in range(len(features.numbers(group)))),
                *(measure_component(column) for column in block.numbers[:, len(features.numbers(group)) :].T),
            )
            for group, block in blocks.items()
        },
        known=build_vocabularies(features, blocks, rows_max),
        start=compute_first_biases(tasks, labels, classes),
        scale={task.name: mean_and_deviation(labels[task.name]) for task in tasks if task.kind == "regression"},
        classes={task.name: classes[task.name] for task in tasks if task.kind == "multiclass"},
    )


def measure_number(column: npt.NDArray[np.float32], bins: int = 0) -> NumberStatistics:
    """Bounds, scale and bins of the finite values, and whether a logarithm makes them less skewed."""
    values = column[np.isfinite(column)].astype(np.float64)
    if not len(values):
        return NumberStatistics()
    distinct = np.unique(values)
    low = min(float(np.quantile(sample, CLIPPED_SHARE, method="lower")) for sample in (distinct, values))
    high = max(float(np.quantile(sample, 1 - CLIPPED_SHARE, method="higher")) for sample in (distinct, values))
    values = values.clip(low, high)
    edges = choose_edges(values, distinct.clip(low, high), bins)
    logs = np.sign(values) * np.log1p(np.abs(values))
    logarithmic = abs(skewness(values)) > max(SKEWNESS_MAX, 1.25 * abs(skewness(logs)))
    mean, deviation = mean_and_deviation(logs if logarithmic else values)
    return NumberStatistics(low, high, logarithmic, mean, deviation, edges)


def measure_component(column: npt.NDArray[np.float32]) -> NumberStatistics:
    """One component of a vector, without logarithm or bins, since its scale is that of the embedder."""
    values = column[np.isfinite(column)].astype(np.float64)
    bounds = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return NumberStatistics(*bounds, False, *mean_and_deviation(values))


def choose_edges(values: npt.NDArray[np.float64], distinct: npt.NDArray[np.float64], bins: int) -> tuple[float, ...]:
    """The edges of at most `bins` bins: half at quantiles of all values, half at those of the distinct ones.

    If most values are equal (amounts that are mostly 0), quantiles of all values would all be that value.
    """
    if not bins or distinct[0] == distinct[-1]:
        return ()
    quantiles = np.linspace(0, 1, bins // 2 + 1)
    edges = np.concatenate([np.quantile(sample, quantiles, method="nearest") for sample in (values, distinct)])
    return tuple(np.unique(np.append(edges, [distinct[0], distinct[-1]]).astype(np.float32)).tolist())


def skewness(values: npt.NDArray[np.float64]) -> float:
    deviation = values.std()
    return float((((values - values.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


def mean_and_deviation(values: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Mean and deviation of the finite values; a constant has deviation 1."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def build_vocabularies(features: FeatureSet, blocks: Mapping[str, Block], rows_max: int) -> dict[str, KnownIds]:
    """The vocabulary of each embedding table, in the order of features."""
    ids_by_table: dict[str, list[npt.NDArray[np.int64]]] = {}
    for group, block in blocks.items():
        for span in features.spans(group):
            ids_by_table.setdefault(table_name(span.feature), []).append(
                block.ids[:, span.start : span.start + span.width]
            )
    return {
        table: select_known_ids(np.concatenate([column.ravel() for column in ids]), rows_max)
        for table, ids in ids_by_table.items()
    }


def compute_first_biases(
    tasks: Sequence[Task], labels: Mapping[str, npt.NDArray[np.generic]], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[float, ...]]:
    """The initial bias of each tower: base rates as logits, conditional on the task that it goes through, if any."""
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
            before = base_rate(labels[task.through]) if task.through else 1.0
            share = float(np.clip(base_rate(label) / before, SHARE_MIN, 1 - SHARE_MIN))
            start[task.name] = (float(np.log(share / (1 - share))),)
    return start


def base_rate(label: npt.NDArray[np.generic]) -> float:
    """The mean of the known labels, at least `SHARE_MIN`."""
    return max(mean_and_deviation(label)[0], SHARE_MIN)
