"""The reward model of the doubly robust estimate: trees that predict an action's reward where it is fully noticed.

Predictions are cross-fitted: those for a unit come from trees that were fitted on other units, so that the model's
overfitting does not enter the estimate (Chernozhukov et al. 2018). At a place with exposure e a reward of e times the
prediction is expected, the position-based click model, so the squared error of r is e² times that of r / e.
"""

from typing import Final

import lightgbm
import numpy as np

from contract.arrays import Floats, Mask
from training.offpolicy.logged_actions import LoggedActions, number_units, split_folds

FOLDS: Final = 5
TREES: Final = 100
PARAMETERS: Final = {
    "objective": "l2",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_child_samples": 50,
    "lambda_l2": 10.0,
    "cat_smooth": 50,
    "verbose": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
}
CHUNK_ROWS: Final = 500_000


def predict_rewards(logs: LoggedActions, seed: int) -> tuple[Floats, Floats]:
    """The reward of the logged actions, and of the target's choices in their places, each (N,)."""
    predicted, expected = np.zeros(len(logs)), np.zeros(len(logs))
    choices = logs.choices
    for fitting, others in split_folds(number_units(logs.unit), FOLDS, seed):
        if not others.any() or not fitting.any():
            continue
        trees = fit_trees(logs, fitting, seed)
        predicted[others] = trees.predict(logs.columns[others]) * logs.exposure[others]
        if choices is None:
            expected[others] = predicted[others]
            continue
        places = np.flatnonzero(others[choices.row])
        for begin in range(0, len(places), CHUNK_ROWS):
            chunk = places[begin : begin + CHUNK_ROWS]
            reward = trees.predict(choices.columns[chunk]) * choices.exposure[chunk]
            np.add.at(expected, choices.row[chunk], choices.probability[chunk] * reward)
    return predicted, expected


def fit_trees(logs: LoggedActions, rows: Mask, seed: int) -> lightgbm.Booster:
    """Trees of the reward by exposure; without a column they predict the mean."""
    exposure = logs.exposure[rows]
    training_set = lightgbm.Dataset(
        logs.columns[rows],
        logs.reward[rows] / exposure,
        weight=np.square(exposure),
        categorical_feature=list(logs.categories),
        params={"verbose": -1},
    )
    return lightgbm.train({**PARAMETERS, "seed": seed}, training_set, TREES)
