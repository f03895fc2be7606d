"""The part of the kept examples that judges updates and is never learned from again: that of some users, by their name.

The name decides alone, so who judges today judges tomorrow, and no update can learn by heart what it is judged by.
"""

from typing import NamedTuple
from zlib import crc32

import numpy as np

from training.data.examples import Examples
from training.online.replay_buffer import ReplayBuffer

HOLDOUT_MODULUS = 5  # one user of so many


class BufferSplit(NamedTuple):
    """The examples that a checkpoint carries: those that are learned from again, and those that judge."""

    replay: ReplayBuffer
    holdout: Examples


def split_buffer(buffer: ReplayBuffer) -> BufferSplit:
    """Users' examples stay together; those of nobody, as products are, go by their own names."""
    examples = buffer.examples
    names = (user or own for user, own in zip(examples.user_id, examples.example_id, strict=True))
    is_holdout = np.array([crc32(name.encode()) % HOLDOUT_MODULUS == 0 for name in names], np.bool_)
    return BufferSplit(buffer.take(~is_holdout), examples.take(is_holdout))
