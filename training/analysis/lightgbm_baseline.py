"""Gradient-boosted trees beside the network: LightGBM, an ensemble for each task, on the same features and rows.

What trees cannot read is turned into columns: a category becomes a number that LightGBM splits as one, of texts and
sequences the commonest ids become a column each, 1 where a row has the id. Codes and commonest ids are counted in the
rows that teach. How many trees there are is chosen on the latest of the learning rows, as the network's epoch is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm
import numpy as np
import numpy.typing as npt

from contract.features.declaration import Feature, FeatureSet
from contract.settings import TrainingConfig
from contract.tasks import Task
from training.data.examples import Examples
from training.data.split import find_learnable, split_by_time

Columns = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

PARAMETERS: Final = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "feature_fraction": 0.5,
    "cat_smooth": 50,
    "verbose": -1,
    "deterministic": True,
    "force_col_wise": True,
}  # a lower rate than its own with early stopping, and smoothed categories: better than its defaults on such tables
TREES_MAX, PATIENCE = 1_000, 40
ROWS_A_LEAF, LEAF_ROWS = 200, (2, 20)  # 20 is its default; with it a few hundred rows give hardly a split
COMMONEST_LIMITS: Final = (100, 1_000)  # ids of a text or sequence that become columns, fewer where there are many rows
CELLS: Final = 20_000_000  # of such columns
OBJECTIVES: Final = {"binary": "binary", "graded": "cross_entropy", "multiclass": "multiclass", "regression": "l2"}


def lightgbm_trees(plan: TrainingConfig) -> Callable[[Examples, Examples, int], dict[str, npt.NDArray[Any]]]:
    """Learns each task from `learning` and predicts `judging`, with a seed; tasks that are not learnable get none."""

    def fit_predict(learning: Examples, judging: Examples, seed: int) -> dict[str, npt.NDArray[Any]]:
        split = split_by_time(learning, plan.held_out)
        teaching, choosing = learning.take(split.training), learning.take(split.validation)
        return {
            task.name: fit_predict_task(task, (teaching, choosing, judging), plan.threads, seed)
            for task in find_learnable(teaching)[0]
            if choosing.has_label(task).any() and judging.has_label(task).any()
        }

    return fit_predict


def fit_predict_task(
    task: Task, parts: tuple[Examples, Examples, Examples], threads: int, seed: int
) -> npt.NDArray[Any]:
    """What trees that learned the task from the first part, stopped by the second, say of the third: (N, ...)."""
    rows = [part.has_label(task) for part in parts]
    teaching, choosing, judging = (part.take(known) for part, known in zip(parts, rows, strict=True))
    features = TreeFeatures.fit(task, teaching)
    parameters = {**PARAMETERS, "objective": OBJECTIVES[task.kind], "num_threads": threads, "seed": seed}
    parameters["min_child_samples"] = int(np.clip(len(teaching) // ROWS_A_LEAF, *LEAF_ROWS))
    if task.kind == "multiclass":
        parameters["num_class"] = len(teaching.classes[task.name])
    training_set = lightgbm.Dataset(
        features.to_matrix(teaching),
        teaching.labels[task.name],
        categorical_feature=features.category_columns,
        free_raw_data=False,
    )
    stopping_set = lightgbm.Dataset(features.to_matrix(choosing), choosing.labels[task.name], reference=training_set)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(parameters, training_set, TREES_MAX, valid_sets=[stopping_set], callbacks=[stop])
    predictions = np.asarray(booster.predict(features.to_matrix(judging)))
    scattered = np.full((len(parts[2]), *predictions.shape[1:]), np.nan)
    scattered[rows[2]] = predictions
    return scattered


@dataclass(frozen=True, slots=True)
class TreeFeatures:
    """The columns that a task's trees read, and what was counted for them in the teaching part."""

    features: FeatureSet
    task: Task
    codes: dict[str, Ids]  # feature -> its categories in order, or its commonest ids

    @classmethod
    def fit(cls, task: Task, teaching: Examples) -> "TreeFeatures":
        fitted = cls(teaching.features, task, {})
        for feature, ids in fitted.iterate_id_features(teaching):
            values, counts = np.unique(ids[ids != 0], return_counts=True)
            limit = int(np.clip(CELLS // max(len(ids), 1), *COMMONEST_LIMITS))
            commonest = np.sort(values[np.argsort(-counts, kind="stable")[:limit]])
            fitted.codes[feature.name] = values if feature.kind == "category" else commonest
        return fitted

    @property
    def category_columns(self) -> list[int]:
        """The numbers of the columns that hold codes: they stand behind the numbers, before the ids of lists."""
        first = sum(len(indices) for indices in (self.visible_numbers(group) for group in self.task.groups))
        count = sum(
            1 for group in self.task.groups for span in self.visible_spans(group) if span.feature.kind == "category"
        )
        return list(range(first, first + count))

    def to_matrix(self, examples: Examples) -> Columns:
        """(N, columns), NaN where a value is unknown or a category was not met."""
        numbers = [examples.blocks[group].numbers[:, self.visible_numbers(group)] for group in self.task.groups]
        coded, lists = list[Columns](), list[Columns]()
        for feature, ids in self.iterate_id_features(examples):
            codes = self.codes[feature.name]
            if feature.kind == "category":
                coded.append(encode_categories(ids[:, 0], codes)[:, None])
            else:
                lists += [(ids == code).any(1)[:, None].astype(np.float32) for code in codes]
        return np.concatenate([*numbers, *coded, *lists], axis=1, dtype=np.float32)

    def iterate_id_features(self, examples: Examples) -> Iterator[tuple[Feature, Ids]]:
        """The task's features that are ids (N, width)."""
        for group in self.task.groups:
            for span in self.visible_spans(group):
                yield span.feature, examples.blocks[group].ids[:, span.start : span.start + span.width]

    def visible_spans(self, group: str) -> list[Any]:
        return [span for span in self.features.spans(group) if span.feature.name not in self.task.hide]

    def visible_numbers(self, group: str) -> list[int]:
        """Columns of the group's numbers and vectors that the task may see."""
        numbers: Sequence[Feature] = self.features.numbers(group)
        indices = [index for index, feature in enumerate(numbers) if feature.name not in self.task.hide]
        for span in self.features.vectors(group):
            if span.feature.name not in self.task.hide:
                indices += range(span.start, span.start + span.width)
        return indices


def encode_categories(ids: Ids, codes: Ids) -> Columns:
    """The place (N,) of each id among the codes, NaN where it is not one of them."""
    if not len(codes):
        return np.full(len(ids), np.nan, np.float32)
    index = np.searchsorted(codes, ids).clip(max=len(codes) - 1)
    return np.where(codes[index] == ids, index, np.nan).astype(np.float32)
