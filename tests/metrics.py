"""Reads metrics of `prometheus_client` by its public interface."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge


def read_metric(metric: Counter | Gauge, *labels: str) -> float:
    """The value of a counter or gauge; `labels` in the order of its declaration."""
    child = metric.labels(*labels) if labels else metric
    return float(next(iter(child.collect())).samples[0].value)


@contextmanager
def assert_increases(metric: Counter, *labels: str, by: float = 1) -> Iterator[None]:
    """The counter should increase by exactly `by` within the block."""
    before = read_metric(metric, *labels)
    yield
    increase = read_metric(metric, *labels) - before
    assert increase == by, f"The metric should increase by {by}. Found {increase}."
