"""Summaries of repeated measurements."""

import statistics
from collections.abc import Sequence

import numpy as np


def min_median_max(values: Sequence[float], digits: int = 1) -> tuple[float, float, float]:
    """Minimum, median and maximum, rounded."""
    return round(min(values), digits), round(statistics.median(values), digits), round(max(values), digits)


def percentiles(values: Sequence[float], percents: Sequence[float] = (50, 99)) -> dict[str, float]:
    """The percentiles by name (`p50`), rounded to tenths."""
    quantiles = np.percentile(values, percents).round(1).tolist()
    return {f"p{percent:g}": value for percent, value in zip(percents, quantiles, strict=True)}
