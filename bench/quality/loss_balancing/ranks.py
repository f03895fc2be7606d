"""From measured tries to ranks: which way of balancing is best over tasks, data sets and seeds, and is that chance?"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
from scipy import stats

from contract.settings import TrainingConfig
from training.data.arrays import Array

DEFAULT: Final = TrainingConfig().balance
SIGNIFICANCE: Final = 0.05  # a p of at least this is taken for chance


class BalanceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One fit: the gain of each task, and seconds of CPU, of a step and of the whole."""

    gain: dict[str, float]
    step_s: float
    seconds: float


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A way of balancing. `mean_rank`: of the data sets' mean ranks, 1 is best; the others by data set.

    `p`: of ranks that differ from the default's by chance alone, by a paired t test over seeds; None without meaning.
    """

    mean_rank: float
    p: float | None
    rank: dict[str, float]
    gain: dict[str, dict[str, float]]
    step_s: dict[str, float]


TrialKey: TypeAlias = tuple[int, str, str]  # seed, data set, name
Trials: TypeAlias = Mapping[TrialKey, BalanceTrial]


def rank_methods(trials: Trials, sets: Sequence[str], names: Sequence[str], seeds: int) -> dict[str, BalanceRow]:
    """What the tries say of each name, those of lower mean rank first."""
    ranks_by_set = {data: compute_ranks(trials, data, names, seeds) for data in sets}
    overall = np.mean(
        [ranks_by_set[data] for data in sets], axis=0
    )  # (seeds, names): many tasks do not make a data set count more
    rows = dict[str, BalanceRow]()
    for index in np.argsort(overall.mean(0), kind="stable"):
        own_trials = {data: [trials[seed, data, names[index]] for seed in range(seeds)] for data in sets}
        rows[names[index]] = BalanceRow(
            mean_rank=round_mean(overall[:, index], 3),
            p=compute_p_value(overall[:, index] - overall[:, names.index(DEFAULT)]) if DEFAULT in names else None,
            rank={data: round_mean(ranks_by_set[data][:, index], 3) for data in sets},
            gain={data: average_gains(own_trials[data]) for data in sets},
            step_s={data: round_mean([trial.step_s for trial in own_trials[data]], 5) for data in sets},
        )
    return rows


def compute_ranks(trials: Trials, data: str, names: Sequence[str], seeds: int) -> Array:
    """The rank of each name, a mean over tasks, (seeds, names); of tasks that each of them has learned."""
    ranks_by_seed = []
    for seed in range(seeds):
        gain = [trials[seed, data, name].gain for name in names]
        tasks = set.intersection(*(set(gain_by_task) for gain_by_task in gain))
        ranks_by_seed.append(
            np.mean([stats.rankdata([-gain_by_task[task] for gain_by_task in gain]) for task in sorted(tasks)], axis=0)
        )
    return np.array(ranks_by_seed)


def average_gains(trials: Sequence[BalanceTrial]) -> dict[str, float]:
    """The mean gain of each task that all of them have learned."""
    tasks = sorted(set.intersection(*(set(trial.gain) for trial in trials)))
    return {task: round_mean([trial.gain[task] for trial in trials], 5) for task in tasks}


def round_mean(values: Array | Sequence[float], digits: int) -> float:
    return round(float(np.mean(values)), digits)


def compute_p_value(differences: Array) -> float | None:
    """How likely so large a mean is where there is no difference; None of one alone, or of equal ones."""
    if len(differences) < 2 or not np.ptp(differences):
        return None
    return round(float(stats.ttest_1samp(differences, 0).pvalue), 4)


def choose_default(rows: Mapping[str, BalanceRow]) -> str:
    """What should be the default: the first row if it is ahead by more than chance, else what is the default now.

    Each other row is one more chance to be ahead by luck, so `p` must be as many times smaller (Bonferroni).
    """
    best, row = next(iter(rows.items()))
    return best if row.p is not None and row.p < SIGNIFICANCE / (len(rows) - 1) else DEFAULT
