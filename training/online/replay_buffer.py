"""The replay buffer: a bounded sample of past examples that the checkpoint carries and every update replays.

Half of it is a uniform sample of the whole past, half favours recent examples. In both halves each label of each task
has a reserved minimum, so that a day of clicks cannot displace the frauds of a month. Rows are chosen by a bottom-k
sample (Cohen and Kaplan 2007) of a random key derived from the example id: the choice does not depend on the updates
that the examples arrived in, and a newer revision replaces the older one. For recency, keys are divided by a factor
that grows with time (forward decay, Cormode et al. 2009; Efraimidis and Spirakis 2006), so they are never redrawn.

Rows that are kept only by a reserved minimum are over-represented. `weight` is the inclusion probability without the
minimum divided by the one with it; replay draws rows in proportion to it, so labels keep their true shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np

from contract.arrays import Floats, Integers, Mask, Strings
from contract.hashing import hash_texts
from contract.units import DAY_MS
from model.checkpoint import CheckpointMetadata
from training.data.examples import Examples
from training.data.parquet import read_examples, read_table, to_parquet
from training.data.split import assign_families

DECAY_MS: Final = float(DAY_MS)  # the recency factor falls to 1/e in this time
FLOOR_SHARE: Final = 0.4  # of the buffer, reserved in equal parts for the labels
FAMILY_SHARE_MIN: Final = 1 / 16  # of the replayed rows, for each family of examples
HOLDOUT_MODULUS: Final = 5  # one in five users is held out
WEIGHT: Final = "weight"


@dataclass(frozen=True, slots=True)
class ReplayBuffer:
    """Examples to replay, and the weight of each (N,) in the draw."""

    examples: Examples
    weight: Floats

    def take(self, rows: Mask) -> "ReplayBuffer":
        return ReplayBuffer(self.examples.take(rows), self.weight[rows])

    def probabilities(self) -> Floats:
        """The probability of each row to be drawn (N,): by weight, but no family below `FAMILY_SHARE_MIN`."""
        family = assign_families(self.examples)
        total = np.bincount(family, self.weight)
        share: Floats = np.where(total > 0, np.maximum(total / total.sum(), FAMILY_SHARE_MIN), 0.0)
        unscaled = self.weight * (share / np.maximum(total, 1e-300))[family]
        probabilities: Floats = unscaled / unscaled.sum()
        return probabilities

    def to_parquet(self) -> bytes:
        """Empty for a buffer without examples."""
        return to_parquet(self.examples, {WEIGHT: self.weight}) if len(self.examples) else b""


class BufferSplit(NamedTuple):
    """The part of a buffer that is replayed, and the part that judges updates and is never learned again."""

    replay: ReplayBuffer
    holdout: Examples


def split_buffer(buffer: ReplayBuffer) -> BufferSplit:
    """Hold out a fixed fifth of the users, chosen by a hash of the user id, the same in every update.

    Rows without a user, such as products, are split by their own ids.
    """
    examples = buffer.examples
    names = (user or ident for user, ident in zip(examples.user_id, examples.example_id, strict=True))
    is_holdout = np.array([crc32(name.encode()) % HOLDOUT_MODULUS == 0 for name in names], np.bool_)
    return BufferSplit(buffer.take(~is_holdout), examples.take(is_holdout))


def encode_buffer(examples: Examples, rows_max: int, seed: int) -> bytes:
    """A buffer of at most `rows_max` of these examples, as Parquet; empty if there are none."""
    return draw_buffer(examples, rows_max, seed).to_parquet()


def decode_buffer(content: bytes, metadata: CheckpointMetadata) -> ReplayBuffer:
    """The buffer of `ReplayBuffer.to_parquet`; all weights are 1 if the file has none, as those of earlier versions."""
    examples, table = read_examples(content, *metadata.schema()), read_table(content)
    if WEIGHT not in table.column_names:
        return ReplayBuffer(examples, np.ones(len(examples)))
    weight = dict(zip(table.column("example_id").to_pylist(), table.column(WEIGHT).to_pylist(), strict=True))
    return ReplayBuffer(examples, np.array([weight[ident] for ident in examples.example_id.tolist()]))


def draw_buffer(examples: Examples, rows_max: int, seed: int) -> ReplayBuffer:
    """At most `rows_max` of these examples; the same for equal seeds, in whatever order or batches they arrive."""
    if not len(examples) or not rows_max:
        return ReplayBuffer(examples.take(np.zeros(len(examples), np.bool_)), np.zeros(0))
    log_draws = np.log(draw_exponentials(examples.example_id, seed))
    keys = (log_draws, log_draws - (examples.ts_ms - examples.ts_ms.max()) / DECAY_MS)  # uniform, recent
    kinds = number_rarest_labels(examples)
    floor = int(FLOOR_SHARE * rows_max) // (2 * max(len(np.unique(kinds)), 1))
    floor_bounds = [find_kind_bounds(key, kinds, floor) for key in keys]
    protected = is_below_any(keys, floor_bounds)
    open_bounds = find_common_bounds(keys, protected, rows_max)
    chosen = protected | is_below_any(keys, open_bounds)
    age = keys[1] - log_draws
    open_probability = inclusion_probability(open_bounds[0], open_bounds[1] - age)
    floor_probability = inclusion_probability(floor_bounds[0], floor_bounds[1] - age)
    weight = open_probability / np.maximum(open_probability, floor_probability)
    return ReplayBuffer(examples.take(chosen), weight[chosen])


def draw_exponentials(ids: Strings, seed: int) -> Floats:
    """A number from the exponential distribution for each id (N,), derived from a hash of the id."""
    uniform = (hash_texts(f"{seed}~{ident}" for ident in ids.tolist()) >> np.uint64(11)) / 2.0**53
    draws: Floats = -np.log1p(-uniform.clip(1e-16, 1 - 1e-16))
    return draws


def is_below_any(keys: Sequence[Floats], bounds: Sequence[Any]) -> Mask:
    """The rows (N,) of which one of the keys lies below its bound, a number or (N,)."""
    below: Mask = np.logical_or.reduce([key < bound for key, bound in zip(keys, bounds, strict=True)])
    return below


def inclusion_probability(uniform_bound: Any, recent_bound: Any) -> Any:
    """The probability that the log draw of a row lies below one of the two bounds."""
    return -np.expm1(-np.exp(np.minimum(np.maximum(uniform_bound, recent_bound), 50.0)))


def find_common_bounds(keys: Sequence[Floats], protected: Mask, rows_max: int) -> list[float]:
    """The bounds below which rows are kept whatever their label: as many rows by each key as `rows_max` allows."""
    ranked = [np.sort(key) for key in keys]

    def bounds(count: int) -> list[float]:
        return [float(sorted_keys[count]) if count < len(sorted_keys) else np.inf for sorted_keys in ranked]

    low, high = 0, len(protected)
    while low < high:
        count = (low + high + 1) // 2
        if (protected | is_below_any(keys, bounds(count))).sum() <= rows_max:
            low = count
        else:
            high = count - 1
    return bounds(low)


def find_kind_bounds(key: Floats, kinds: Integers, count: int) -> Floats:
    """For each row (N,) the bound below which `count` rows of its kind lie; infinite for kinds with fewer rows."""
    bounds = np.full(len(key), np.inf)
    for kind in np.unique(kinds):
        rows = np.flatnonzero(kinds == kind)
        if len(rows) > count:
            bounds[rows] = np.partition(key[rows], count)[count]
    return bounds


def number_rarest_labels(examples: Examples) -> Integers:
    """For each row (N,) the number of its rarest label: a class of a task, or the positive or negative of a task."""
    numbers, fewest = np.zeros(len(examples), np.int64), np.full(len(examples), np.inf)
    number = 0
    for task in examples.tasks:
        label, known = examples.labels[task.name], examples.has_label(task)
        value = label if task.kind == "multiclass" else (label >= 0.5) & (task.kind != "regression")
        for label_value in np.unique(value[known]):
            number += 1
            rows = known & (value == label_value)
            count = rows.sum()
            numbers[rows & (count < fewest)] = number
            fewest[rows] = np.minimum(fewest[rows], count)
    return numbers
