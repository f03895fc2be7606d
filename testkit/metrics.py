"""Reads Prometheus metrics of this process through their public interface."""

from prometheus_client.metrics import MetricWrapperBase


def read_metric(metric: MetricWrapperBase, *labels: str) -> float:
    """The value of a counter or gauge; `labels` are the values of its labels, in their order."""
    series = metric.labels(*labels) if labels else metric
    (family,) = series.collect()
    return float(family.samples[0].value)
