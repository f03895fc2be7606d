"""The columns that gradient-boosted trees read: the features of one task as a matrix.

A category becomes a categorical column of codes. The most frequent ids of texts and sequences become a column each, 1
where a row has the id. Codes and frequent ids come from the training rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.arrays import Integers
from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from training.data.examples import Examples

Columns = npt.NDArray[np.float32]

PARAMETERS: Final = {
    "learning_rate": 0.05,
    "feature_fraction": 0.5,
    "cat_smooth": 50,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
}  # a lower learning rate and smoothed categories do better than LightGBM's defaults on such columns
ROWS_PER_LEAF_ROW: Final = 200  # training rows for each row that a leaf should have at least
LEAF_ROWS_LIMITS: Final = (2, 20)  # 20 is LightGBM's default; with it a few hundred rows give hardly a split
ID_COLUMNS_LIMITS: Final = (100, 1_000)  # columns for ids of a text or sequence, fewer for more rows
ID_CELLS: Final = 20_000_000  # of all these columns


def choose_leaf_rows(rows: int) -> int:
    """The rows that a leaf should have at least, by the number of training rows."""
    return int(np.clip(rows // ROWS_PER_LEAF_ROW, *LEAF_ROWS_LIMITS))


@dataclass(frozen=True, slots=True)
class TreeFeatures:
    """The columns that a task's trees read, with the codes counted in the training part."""

    features: FeatureSet
    task: Task
    codes: dict[str, Integers]  # by feature: its sorted categories, or its most frequent ids, sorted

    @classmethod
    def fit(cls, task: Task, training: Examples) -> "TreeFeatures":
        fitted = cls(training.features, task, {})
        for feature, ids in fitted.iterate_id_features(training):
            values, counts = np.unique(ids[ids != 0], return_counts=True)
            limit = int(np.clip(ID_CELLS // max(len(ids), 1), *ID_COLUMNS_LIMITS))
            frequent = np.sort(values[np.argsort(-counts, kind="stable")[:limit]])
            fitted.codes[feature.name] = values if feature.kind == "category" else frequent
        return fitted

    @property
    def category_columns(self) -> list[int]:
        """The indices of the categorical columns: they come after the numbers and before the ids of lists."""
        first = sum(len(self.visible_numbers(group)) for group in self.task.groups)
        spans = [span for group in self.task.groups for span in self.visible_spans(group)]
        count = sum(span.feature.kind == "category" for span in spans)
        return list(range(first, first + count))

    def to_matrix(self, examples: Examples) -> Columns:
        """(N, columns), NaN for unknown values and for categories that training did not see."""
        numbers = [examples.blocks[group].numbers[:, self.visible_numbers(group)] for group in self.task.groups]
        coded, lists = list[Columns](), list[Columns]()
        for feature, ids in self.iterate_id_features(examples):
            codes = self.codes[feature.name]
            if feature.kind == "category":
                coded.append(encode_categories(ids[:, 0], codes)[:, None])
            else:
                lists += [(ids == code).any(1)[:, None].astype(np.float32) for code in codes]
        return np.concatenate([*numbers, *coded, *lists], axis=1, dtype=np.float32)

    def iterate_id_features(self, examples: Examples) -> Iterator[tuple[Feature, Integers]]:
        """The task's features with ids (N, width)."""
        for group in self.task.groups:
            for span in self.visible_spans(group):
                yield span.feature, examples.blocks[group].ids[:, span.start : span.start + span.width]

    def visible_spans(self, group: str) -> list[Any]:
        return [span for span in self.features.spans(group) if span.feature.name not in self.task.hide]

    def visible_numbers(self, group: str) -> list[int]:
        """The columns of the group's numbers and vectors that are not hidden from the task."""
        numbers: Sequence[Feature] = self.features.numbers(group)
        indices = [index for index, feature in enumerate(numbers) if feature.name not in self.task.hide]
        for span in self.features.vectors(group):
            if span.feature.name not in self.task.hide:
                indices += range(span.start, span.start + span.width)
        return indices


def encode_categories(ids: Integers, codes: Integers) -> Columns:
    """The index (N,) of each id among the sorted codes, NaN for an id that is not one of them."""
    if not len(codes):
        return np.full(len(ids), np.nan, np.float32)
    index = np.searchsorted(codes, ids).clip(max=len(codes) - 1)
    return np.where(codes[index] == ids, index, np.nan).astype(np.float32)
