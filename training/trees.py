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

from contract.features import Feature, FeatureSet
from contract.tasks import Task
from training.examples import Examples
from training.plan import Plan
from training.split import learnable, split_by_time

Columns = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]

SETTINGS: Final = {
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
COMMONEST: Final = (100, 1_000)  # ids of a text or sequence that become columns, fewer where there are many rows
CELLS: Final = 20_000_000  # of such columns
OBJECTIVES: Final = {"binary": "binary", "graded": "cross_entropy", "multiclass": "multiclass", "regression": "l2"}


def trees(plan: Plan) -> Callable[[Examples, Examples, int], dict[str, npt.NDArray[Any]]]:
    """Learns each task from `learning` and predicts `judging`, with a seed; tasks that are not learnable get none."""

    def answered(learning: Examples, judging: Examples, seed: int) -> dict[str, npt.NDArray[Any]]:
        split = split_by_time(learning, plan.held_out)
        teaching, choosing = learning.take(split.training), learning.take(split.validation)
        return {
            task.name: answers(task, (teaching, choosing, judging), plan.threads, seed)
            for task in learnable(teaching)[0]
            if choosing.known(task).any() and judging.known(task).any()
        }

    return answered


def answers(task: Task, parts: tuple[Examples, Examples, Examples], threads: int, seed: int) -> npt.NDArray[Any]:
    """What trees that learned the task from the first part, stopped by the second, say of the third: (N, ...)."""
    rows = [part.known(task) for part in parts]
    teaching, choosing, judging = (part.take(known) for part, known in zip(parts, rows, strict=True))
    reader = Reader.of(task, teaching)
    settings = {**SETTINGS, "objective": OBJECTIVES[task.kind], "num_threads": threads, "seed": seed}
    settings["min_child_samples"] = int(np.clip(len(teaching) // ROWS_A_LEAF, *LEAF_ROWS))
    if task.kind == "multiclass":
        settings["num_class"] = len(teaching.classes[task.name])
    learned = lightgbm.Dataset(
        reader.matrix(teaching), teaching.labels[task.name], categorical_feature=reader.categories, free_raw_data=False
    )
    chosen = lightgbm.Dataset(reader.matrix(choosing), choosing.labels[task.name], reference=learned)
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    booster = lightgbm.train(settings, learned, TREES_MAX, valid_sets=[chosen], callbacks=[stop])
    said = np.asarray(booster.predict(reader.matrix(judging)))
    found = np.full((len(parts[2]), *said.shape[1:]), np.nan)
    found[rows[2]] = said
    return found


@dataclass(frozen=True, slots=True)
class Reader:
    """The columns that a task's trees read, and what was counted for them in the teaching part."""

    features: FeatureSet
    task: Task
    codes: dict[str, Ids]  # feature -> its categories in order, or its commonest ids

    @classmethod
    def of(cls, task: Task, teaching: Examples) -> "Reader":
        reader = cls(teaching.features, task, {})
        for feature, ids in reader.id_features(teaching):
            values, counts = np.unique(ids[ids != 0], return_counts=True)
            most = int(np.clip(CELLS // max(len(ids), 1), *COMMONEST))
            commonest = np.sort(values[np.argsort(-counts, kind="stable")[:most]])
            reader.codes[feature.name] = values if feature.kind == "category" else commonest
        return reader

    @property
    def categories(self) -> list[int]:
        """The numbers of the columns that hold codes: they stand behind the numbers, before the ids of lists."""
        first = sum(len(at) for at in (self.numbers_at(group) for group in self.task.groups))
        count = sum(1 for group in self.task.groups for span in self.spans(group) if span.feature.kind == "category")
        return list(range(first, first + count))

    def matrix(self, examples: Examples) -> Columns:
        """(N, columns), NaN where a value is unknown or a category was not met."""
        numbers = [examples.blocks[group].numbers[:, self.numbers_at(group)] for group in self.task.groups]
        coded, lists = list[Columns](), list[Columns]()
        for feature, ids in self.id_features(examples):
            codes = self.codes[feature.name]
            if feature.kind == "category":
                coded.append(codes_of(ids[:, 0], codes)[:, None])
            else:
                lists += [(ids == one).any(1)[:, None].astype(np.float32) for one in codes]
        return np.concatenate([*numbers, *coded, *lists], axis=1, dtype=np.float32)

    def id_features(self, examples: Examples) -> Iterator[tuple[Feature, Ids]]:
        """The task's features that are ids (N, width)."""
        for group in self.task.groups:
            for span in self.spans(group):
                yield span.feature, examples.blocks[group].ids[:, span.start : span.start + span.width]

    def spans(self, group: str) -> list[Any]:
        return [span for span in self.features.spans(group) if span.feature.name not in self.task.hide]

    def numbers_at(self, group: str) -> list[int]:
        """Columns of the group's numbers and vectors that the task may see."""
        numbers: Sequence[Feature] = self.features.numbers(group)
        found = [at for at, feature in enumerate(numbers) if feature.name not in self.task.hide]
        for span in self.features.vectors(group):
            if span.feature.name not in self.task.hide:
                found += range(span.start, span.start + span.width)
        return found


def codes_of(ids: Ids, codes: Ids) -> Columns:
    """The place (N,) of each id among the codes, NaN where it is not one of them."""
    if not len(codes):
        return np.full(len(ids), np.nan, np.float32)
    at = np.searchsorted(codes, ids).clip(max=len(codes) - 1)
    return np.where(codes[at] == ids, at, np.nan).astype(np.float32)
