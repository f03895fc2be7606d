"""The examples that a checkpoint carries, to be learned from again when new ones come.

Half of the room belongs to the whole past alike, half to what is recent, and within both each label of each task has a
floor, so that the frauds of a month are not washed away by a day of clicks. Who stays is decided by a number drawn from
the example's own id: keeping the least numbers is drawing by chance (a bottom-k sample, Cohen and Kaplan 2007), gives
the same whether examples come at once or update by update, and lets a revision take the place of the one before it.
Recent examples have their numbers divided by what grows with time (forward decay, Cormode et al. 2009; Efraimidis and
Spirakis 2006), so no number ever has to be drawn again.

A row that only a floor has kept would be met more often than such rows happen. `weight` is the chance to be kept
without floors by the chance to be kept at all, and replay draws rows in proportion to it, so labels keep their true
shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.features.declaration import Block, FeatureSet
from contract.hashing import hash_texts
from contract.tasks import Task
from model.checkpoint import CheckpointMetadata
from training.data.arrays import Integers
from training.data.examples import Examples, select_newest
from training.data.parquet import read_examples, read_table, to_parquet
from training.data.split import assign_families

DECAY_MS: Final = 86_400_000.0  # by so much time the chance of a recent place falls to 1/e
FLOOR_SHARE: Final = 0.4  # of the room, shared out evenly among labels
FAMILY_SHARE_MIN: Final = 1 / 16  # of what is replayed, for each family of examples
WEIGHT: Final = "weight"

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """Examples to learn from again, and how much each counts (N,) when rows are drawn from them."""

    examples: Examples
    weight: Floats

    def take(self, rows: Mask) -> "ReplayBuffer":
        return ReplayBuffer(self.examples.take(rows), self.weight[rows])

    def probabilities(self) -> Floats:
        """The chance of each row to be drawn (N,): families as they are, but none with less than its least share."""
        family = assign_families(self.examples)
        total = np.bincount(family, self.weight)
        share: Floats = np.where(total > 0, np.maximum(total / total.sum(), FAMILY_SHARE_MIN), 0.0)
        unscaled = self.weight * (share / np.maximum(total, 1e-300))[family]
        probabilities: Floats = unscaled / unscaled.sum()
        return probabilities

    def to_parquet(self) -> bytes:
        """None: no bytes."""
        return to_parquet(self.examples, {WEIGHT: self.weight}) if len(self.examples) else b""


def encode_buffer(examples: Examples, rows_max: int, seed: int) -> bytes:
    """At most `keep` of these examples, as Parquet; none: no bytes."""
    return draw_buffer(examples, rows_max, seed).to_parquet()


def decode_buffer(content: bytes, about: CheckpointMetadata) -> ReplayBuffer:
    """What `Sample.parquet` wrote, or an earlier version of this program, whose rows all count alike."""
    examples, table = read_examples(content, *read_schema(about)), read_table(content)
    if WEIGHT not in table.column_names:
        return ReplayBuffer(examples, np.ones(len(examples)))
    weight = dict(zip(table.column("example_id").to_pylist(), table.column(WEIGHT).to_pylist(), strict=True))
    return ReplayBuffer(examples, np.array([weight[ident] for ident in examples.example_id.tolist()]))


def draw_buffer(examples: Examples, rows_max: int, seed: int) -> ReplayBuffer:
    """At most `keep` of these examples: equal ones for equal seeds, in whatever order and portions they came."""
    if not len(examples) or not rows_max:
        return ReplayBuffer(examples.take(np.zeros(len(examples), np.bool_)), np.zeros(0))
    draws = draw_exponentials(examples.example_id, seed)
    log_draws = np.log(draws)
    keys = (log_draws, log_draws - (examples.ts_ms - examples.ts_ms.max()) / DECAY_MS)
    kinds = number_rarest_labels(examples)
    floor = int(FLOOR_SHARE * rows_max) // (2 * max(len(np.unique(kinds)), 1))
    by_floor = [find_kind_bounds(key, kinds, floor) for key in keys]
    protected = np.logical_or.reduce([key < bound for key, bound in zip(keys, by_floor, strict=True)])
    by_chance = find_common_bounds(keys, protected, rows_max)
    chosen = protected | np.logical_or.reduce([key < bound for key, bound in zip(keys, by_chance, strict=True)])
    age = keys[1] - log_draws
    open_probability = inclusion_probability(by_chance[0], by_chance[1] - age)
    total_probability = np.maximum(open_probability, inclusion_probability(by_floor[0], by_floor[1] - age))
    weight = open_probability / total_probability
    return ReplayBuffer(examples.take(chosen), weight[chosen])


def draw_exponentials(ids: npt.NDArray[np.object_], seed: int) -> Floats:
    """A number from the exponential distribution for each id (N,), always the same."""
    uniform = (hash_texts(f"{seed}~{ident}" for ident in ids.tolist()) >> np.uint64(11)) / 2.0**53
    draws: Floats = -np.log1p(-uniform.clip(1e-16, 1 - 1e-16))
    return draws


def inclusion_probability(uniform_bound: Any, recent_bound: Any) -> Any:
    """The chance of a row's number to lie below either bound, both of which are logarithms."""
    return -np.expm1(-np.exp(np.minimum(np.maximum(uniform_bound, recent_bound), 50.0)))


def find_common_bounds(keys: Sequence[Floats], protected: Mask, rows_max: int) -> list[float]:
    """The bounds below which rows stay whatever their label: equally many by each key, as many as there is room for."""
    ranked = [np.sort(key) for key in keys]

    def bounds(count: int) -> list[float]:
        return [float(sorted_keys[count]) if count < len(sorted_keys) else np.inf for sorted_keys in ranked]

    low, high = 0, len(protected)
    while low < high:
        count = (low + high + 1) // 2
        chosen = np.logical_or.reduce(
            [protected, *(key < bound for key, bound in zip(keys, bounds(count), strict=True))]
        )
        low, high = (count, high) if chosen.sum() <= rows_max else (low, count - 1)
    return bounds(low)


def find_kind_bounds(key: Floats, kinds: Integers, count: int) -> Floats:
    """For each row (N,) the bound of its kind, below which `count` rows of this kind lie, or all of them."""
    bounds = np.full(len(key), np.inf)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        if len(rows) > count:
            bounds[rows] = np.partition(key[rows], count)[count]
    return bounds


def number_rarest_labels(examples: Examples) -> Integers:
    """Of each row (N,) the number of the rarest label that it has: a task with a class, or with yes or no."""
    numbers, fewest = np.zeros(len(examples), np.int64), np.full(len(examples), np.inf)
    number = 0
    for task in examples.tasks:
        label, known = examples.labels[task.name], examples.has_label(task)
        value = label if task.kind == "multiclass" else (label >= 0.5) & (task.kind != "regression")
        for label_value in np.unique(value[known]):
            rows, number = known & (value == label_value), number + 1
            count = rows.sum()
            numbers[rows & (count < fewest)] = number
            fewest[rows] = np.minimum(fewest[rows], count)
    return numbers


def read_schema(about: CheckpointMetadata) -> tuple[FeatureSet, Sequence[Task], Mapping[str, tuple[str, ...]]]:
    """What columns and labels mean to a model: its features, tasks and classes."""
    return FeatureSet(about.features), about.tasks, about.statistics.classes


def merge_examples(parts: Sequence[Examples]) -> Examples:
    """Examples that mean the same to a model as one set, of each id the newest revision, of equal ones the last."""
    revisions = concatenate_examples(parts)
    rows = select_newest(revisions.example_id, revisions.revision)
    return revisions.take(rows[np.argsort(revisions.ts_ms[rows], kind="stable")])


def concatenate_examples(parts: Sequence[Examples]) -> Examples:
    """All rows of examples that mean the same to a model, as they stand."""
    first, changed = parts[0], dict[str, Any]()
    for field in fields(Examples):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            changed[field.name] = np.concatenate(values)
    for name in ("labels", "known_ms"):
        changed[name] = {t.name: np.concatenate([getattr(part, name)[t.name] for part in parts]) for t in first.tasks}
    changed["blocks"] = {group: concatenate_blocks([part.blocks[group] for part in parts]) for group in first.blocks}
    same = {name: getattr(first, name) for name in ("features", "tasks", "classes")}
    return Examples(**same | changed)


def concatenate_blocks(blocks: Sequence[Block]) -> Block:
    return Block(np.concatenate([b.numbers for b in blocks]), np.concatenate([b.ids for b in blocks]))
