"""Logged actions with what a target policy would do in their place: the common form of tables and lists."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from contract.arrays import Array, Floats, Integers, Mask
from training.stats.off_policy import WeightedRewards

CATEGORIES_MAX: Final = 1_000  # further values of a category are one to the reward model


@dataclass(frozen=True, slots=True)
class TargetChoices:
    """What the target policy would choose: M choices, each with the row (M,) in whose place it stands.

    `probability` (M,) sums to 1 over the choices of a row. `propensity` (M,): with which the policy that served could
    choose it there; 0 never, NaN unknown; None if only that of the logged actions is known. `columns` (M, C): as in
    `LoggedActions`. `exposure` (M,): see there.
    """

    row: Integers
    probability: Floats
    propensity: Floats | None
    columns: Floats
    exposure: Floats

    def measure_uncovered(self) -> float | None:
        """The share of the choices, by exposure, that the policy that served could not make or may not have made."""
        if self.propensity is None:
            return None
        mass = self.probability * self.exposure
        return float(mass[~(self.propensity > 0)].sum() / mass.sum())


@dataclass(frozen=True, slots=True)
class LoggedActions:
    """N logged actions; arrays are (N,), `columns` (N, C): what the reward model knows of an action and its context.

    `propensity`: NaN or 0 where unknown. `target`: the target policy's probability of the same action. `unit`: rows
    with one number depend on each other. `exposure`: how likely the action was noticed at its place; a weight includes
    the ratio of exposures, `target_exposure` by `exposure`. `categories`: the columns that hold codes. Without
    `choices` the columns should describe the context alone.
    """

    reward: Floats
    propensity: Floats
    target: Floats
    unit: Integers
    exposure: Floats
    target_exposure: Floats
    columns: Floats
    categories: tuple[int, ...] = ()
    choices: TargetChoices | None = None

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def is_known(self) -> Mask:
        """The rows with a usable propensity."""
        return np.asarray((self.propensity > 0) & (self.propensity <= 1) & (self.exposure > 0))

    def weigh(self) -> WeightedRewards:
        """The rows with a usable propensity, with their weights."""
        known = self.is_known
        propensity, exposure = self.propensity[known], self.exposure[known]
        weight = self.target[known] / propensity * self.target_exposure[known] / exposure
        return WeightedRewards(self.reward[known], weight, number_units(self.unit[known]), exposure)


def number_units(unit: Array) -> Integers:
    """Numbers from 0 for the values (N,)."""
    return np.unique(unit, return_inverse=True)[1].astype(np.int64)


def encode_category(values: Array) -> tuple[Floats, list[str]]:
    """The code of each value (N,) as a number, and the values by code: the most frequent ones; the others share one."""
    names, number, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    code = np.empty(len(names))
    code[order] = np.minimum(np.arange(len(names)), CATEGORIES_MAX - 1)
    return code[number], [str(name) for name in names[order[:CATEGORIES_MAX]]]


def split_folds(unit: Integers, folds: int, seed: int) -> Iterator[tuple[Mask, Mask]]:
    """Masks (N,) of rows to fit on and of the others; all rows of a unit are in one fold."""
    fold = np.random.default_rng(seed).permutation(int(unit.max()) + 1)[unit] % folds
    for number in range(folds):
        yield fold != number, fold == number
