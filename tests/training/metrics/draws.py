"""Labels and predictions for tests of metrics."""

from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

GroupedRows: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]  # labels, predictions, groups


@st.composite
def draw_grouped_rows(draw: st.DrawFn, least: int = 1) -> GroupedRows:
    """Labels of 0 and 1, predictions of few distinct values, and a group for each row."""
    n = draw(st.integers(least, 40))
    y = draw(arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])))
    p = draw(arrays(np.float32, n, elements=st.integers(1, 12).map(lambda value: value / 16)))
    return y, p, draw(arrays(np.int64, n, elements=st.integers(0, 4))).astype(str).astype(object)


@st.composite
def draw_class_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four classes, and class probabilities."""
    n = draw(st.integers(1, 30))
    y = draw(arrays(np.int64, n, elements=st.integers(0, 3)))
    p = draw(arrays(np.float64, (n, 4), elements=st.floats(0.01, 1)))
    return y, p / p.sum(1, keepdims=True)


def draw_weighted_rows(seed: int, rows: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, predictions with many ties, and integer weights."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(rows), 2)
    return (rng.random(rows) < p).astype(np.float64), p, rng.integers(1, 5, rows).astype(np.float64)
