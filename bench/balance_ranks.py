"""From measured tries to ranks: which way of balancing is best over tasks, data sets and seeds, and is that chance?"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
from scipy import stats

from contract.settings import TrainingConfig
from training.metrics.metrics import Array

DEFAULT: Final = TrainingConfig().balance
CHANCE: Final = 0.05  # a p of at least this is taken for chance


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One fit: the gain of each task, and seconds of CPU, of a step and of the whole."""

    gain: dict[str, float]
    step_s: float
    seconds: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A way of balancing. `mean_rank`: of the data sets' mean ranks, 1 is best; the others by data set.

    `p`: of ranks that differ from the default's by chance alone, by a paired t test over seeds; None without meaning.
    """

    mean_rank: float
    p: float | None
    rank: dict[str, float]
    gain: dict[str, dict[str, float]]
    step_s: dict[str, float]


Key: TypeAlias = tuple[int, str, str]  # seed, data set, name
Tries: TypeAlias = Mapping[Key, Try]


def rows_of(tries: Tries, sets: Sequence[str], names: Sequence[str], seeds: int) -> dict[str, Row]:
    """What the tries say of each name, those of lower mean rank first."""
    of = {data: ranks(tries, data, names, seeds) for data in sets}
    overall = np.mean(
        [of[data] for data in sets], axis=0
    )  # (seeds, names): many tasks do not make a data set count more
    rows = dict[str, Row]()
    for at in np.argsort(overall.mean(0), kind="stable"):
        mine = {data: [tries[seed, data, names[at]] for seed in range(seeds)] for data in sets}
        rows[names[at]] = Row(
            mean_rank=rounded(overall[:, at], 3),
            p=chance_of(overall[:, at] - overall[:, names.index(DEFAULT)]) if DEFAULT in names else None,
            rank={data: rounded(of[data][:, at], 3) for data in sets},
            gain={data: gains(mine[data]) for data in sets},
            step_s={data: rounded([one.step_s for one in mine[data]], 5) for data in sets},
        )
    return rows


def ranks(tries: Tries, data: str, names: Sequence[str], seeds: int) -> Array:
    """The rank of each name, a mean over tasks, (seeds, names); of tasks that each of them has learned."""
    found = []
    for seed in range(seeds):
        gain = [tries[seed, data, name].gain for name in names]
        tasks = set.intersection(*(set(of) for of in gain))
        found.append(np.mean([stats.rankdata([-of[task] for of in gain]) for task in sorted(tasks)], axis=0))
    return np.array(found)


def gains(tries: Sequence[Try]) -> dict[str, float]:
    """The mean gain of each task that all of them have learned."""
    tasks = sorted(set.intersection(*(set(one.gain) for one in tries)))
    return {task: rounded([one.gain[task] for one in tries], 5) for task in tasks}


def rounded(values: Array | Sequence[float], digits: int) -> float:
    return round(float(np.mean(values)), digits)


def chance_of(differences: Array) -> float | None:
    """How likely so large a mean is where there is no difference; None of one alone, or of equal ones."""
    if len(differences) < 2 or not np.ptp(differences):
        return None
    return round(float(stats.ttest_1samp(differences, 0).pvalue), 4)


def advised(rows: Mapping[str, Row]) -> str:
    """What should be the default: the first row if it is ahead by more than chance, else what is the default now.

    Each other row is one more chance to be ahead by luck, so `p` must be as many times smaller (Bonferroni).
    """
    best, row = next(iter(rows.items()))
    return best if row.p is not None and row.p < CHANCE / (len(rows) - 1) else DEFAULT
