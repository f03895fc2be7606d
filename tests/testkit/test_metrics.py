"""Metrics are read through the public interface of prometheus_client."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from testkit.metrics import read_metric


def test_counters_and_gauges_are_read_with_and_without_labels() -> None:
    # given
    registry = CollectorRegistry()
    total = Counter("records_total", "Records.", ["kind", "lane"], registry=registry)
    lag = Gauge("lag", "Lag.", registry=registry)
    # when
    total.labels("orders", "a").inc(3)
    total.labels("orders", "b").inc(5)
    lag.set(2.5)
    # then
    assert (read_metric(total, "orders", "a"), read_metric(total, "orders", "b"), read_metric(lag)) == (3, 5, 2.5)
