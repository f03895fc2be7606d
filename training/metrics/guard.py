"""What all metrics share: a value of NaN where a metric is undefined, and default weights."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import numpy as np

from contract.arrays import Array, Floats

P = ParamSpec("P")


def require_finite(
    metric: Callable[Concatenate[Array, Array, P], float],
) -> Callable[Concatenate[Array, Array, P], float]:
    """Make a metric return NaN for no rows and for predictions that are not finite: a sort would rank NaN first."""

    @wraps(metric)
    def call_if_finite(y: Array, p: Array, /, *args: P.args, **kwargs: P.kwargs) -> float:
        return metric(y, p, *args, **kwargs) if len(y) and np.isfinite(p).all() else float("nan")

    return call_if_finite


def to_weights(weights: Array | None, rows: int) -> Floats:
    """The weights as float64, 1 for each row by default."""
    return np.ones(rows) if weights is None else np.asarray(weights, np.float64)
