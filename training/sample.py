"""The examples that a checkpoint carries, to be learned from again when new ones come."""

import numpy as np

from training.examples import Examples
from training.table import to_parquet


def sample_of(examples: Examples, keep: int, seed: int) -> bytes:
    """At most `keep` examples drawn from these, as Parquet; none: no bytes."""
    chosen = np.random.default_rng(seed).permutation(len(examples))[:keep]
    return to_parquet(examples.take(np.sort(chosen))) if len(chosen) else b""
