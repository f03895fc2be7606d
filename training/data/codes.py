"""Dense integer codes for ids, for grouping rows."""

import numpy as np
import pyarrow as pa

from contract.arrays import Array, Integers


def factorize(ids: Array) -> Integers:
    """A dense code (N,) of each id, equal for equal ids of any type."""
    codes = pa.array(ids).dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)
