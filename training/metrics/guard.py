"""What all metrics share: a value of NaN where a metric is undefined, and dense codes for ids."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import numpy as np
import pyarrow as pa

from training.data.arrays import Array, Floats, Integers

P = ParamSpec("P")


def require_finite(
    metric: Callable[Concatenate[Array, Array, P], float],
) -> Callable[Concatenate[Array, Array, P], float]:
    """Make a metric return NaN for no rows and for predictions that are not finite: a sort would rank NaN first."""

    @wraps(metric)
    def guarded(y: Array, p: Array, /, *args: P.args, **kwargs: P.kwargs) -> float:
        return metric(y, p, *args, **kwargs) if len(y) and np.isfinite(p).all() else float("nan")

    return guarded


def factorize(ids: Array) -> Integers:
    """A dense code (N,) of each id, equal for equal ids of any type."""
    codes = pa.array(ids).dictionary_encode().indices
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def to_weights(weights: Array | None, rows: int) -> Floats:
    """The weights as float64, 1 for each row by default."""
    return np.ones(rows) if weights is None else np.asarray(weights, np.float64)
