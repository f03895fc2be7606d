"""Ranks of loss balancing methods over tasks, datasets and seeds, and whether the differences are significant."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np
from scipy import stats

from contract.arrays import Array
from contract.settings.training import TrainingConfig

DEFAULT: Final = TrainingConfig().balance
SIGNIFICANCE: Final = 0.05  # a p of at least this counts as chance


class BalanceTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One training: gain by task, and CPU seconds of a step and of the whole."""

    gain: dict[str, float]
    step_s: float
    seconds: float


class BalanceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A method. `mean_rank`: mean over datasets, 1 is best; the other figures are by dataset.

    `p`: p-value of a paired t-test of its ranks against the default's, over seeds; None if undefined.
    """

    mean_rank: float
    p: float | None
    rank: dict[str, float]
    gain: dict[str, dict[str, float]]
    step_s: dict[str, float]


TrialKey: TypeAlias = tuple[int, str, str]  # seed, dataset, name
Trials: TypeAlias = Mapping[TrialKey, BalanceTrial]


def rank_methods(trials: Trials, sets: Sequence[str], names: Sequence[str], seeds: int) -> dict[str, BalanceRow]:
    """The row of each method, in order of its mean rank."""
    ranks_by_set = {data: compute_ranks(trials, data, names, seeds) for data in sets}
    overall = np.mean([ranks_by_set[data] for data in sets], axis=0)  # (seeds, names); each dataset weighs the same
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
    """The rank of each method (seeds, names), a mean over the tasks that all of them have learned."""
    ranks_by_seed = []
    for seed in range(seeds):
        gain = [trials[seed, data, name].gain for name in names]
        tasks = set.intersection(*(set(gain_by_task) for gain_by_task in gain))
        ranks_by_seed.append(
            np.mean([stats.rankdata([-gain_by_task[task] for gain_by_task in gain]) for task in sorted(tasks)], axis=0)
        )
    return np.array(ranks_by_seed)


def average_gains(trials: Sequence[BalanceTrial]) -> dict[str, float]:
    """The mean gain of each task that all trials have learned."""
    tasks = sorted(set.intersection(*(set(trial.gain) for trial in trials)))
    return {task: round_mean([trial.gain[task] for trial in trials], 5) for task in tasks}


def round_mean(values: Array | Sequence[float], digits: int) -> float:
    return round(float(np.mean(values)), digits)


def compute_p_value(differences: Array) -> float | None:
    """p-value of a t-test that the mean is 0; None for a single value or equal ones."""
    if len(differences) < 2 or not np.ptp(differences):
        return None
    return round(float(stats.ttest_1samp(differences, 0).pvalue), 4)


def choose_default(rows: Mapping[str, BalanceRow]) -> str:
    """The advised default: the first row if it is significantly better, else the present default.

    The threshold is divided by the number of compared rows (Bonferroni).
    """
    best, row = next(iter(rows.items()))
    return best if row.p is not None and row.p < SIGNIFICANCE / (len(rows) - 1) else DEFAULT
