"""Asserts how metrics of this process change."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter

from testkit.metrics import read_metric


@contextmanager
def assert_increases(metric: Counter, *labels: str, by: float = 1) -> Iterator[None]:
    """The counter should increase by exactly `by` within the block."""
    before = read_metric(metric, *labels)
    yield
    increase = read_metric(metric, *labels) - before
    assert increase == by, f"The metric should increase by {by}. Found {increase}."
