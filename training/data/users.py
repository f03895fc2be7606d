"""The users of examples as numbers, for draws of whole users."""

import numpy as np

from contract.arrays import Integers
from training.data.codes import factorize
from training.data.examples import Examples


def index_users(examples: Examples) -> Integers:
    """The number of each row's user (N,); a row without a user has a number of its own."""
    keys = zip(examples.user_id, examples.example_id, strict=True)
    return factorize(np.array([f"u{user}" if user else f"e{example_id}" for user, example_id in keys], np.object_))
