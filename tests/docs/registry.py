"""The Prometheus metrics that a module declares, in the words of docs/metrics.md."""

from types import ModuleType

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests.docs.pages import MarkdownPage, strip_code_marks


def list_metrics(module: ModuleType) -> list[MetricWrapperBase]:
    """All metrics that a module defines."""
    return [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]


def metric_name(metric: MetricWrapperBase) -> str:
    """The exported name, with the suffix of a counter."""
    (family,) = metric.describe()
    return f"{family.name}_total" if isinstance(metric, Counter) else str(family.name)


def metric_type(metric: MetricWrapperBase) -> str:
    """`counter`, `gauge` or `histogram`."""
    return next(kind.__name__.lower() for kind in (Counter, Gauge, Histogram) if isinstance(metric, kind))


def describe_metrics(metrics: list[MetricWrapperBase]) -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name, as registered."""
    return {metric_name(m): (metric_type(m), set(m._labelnames)) for m in metrics}


def read_documented_metrics(page: MarkdownPage, heading: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name, as documented under a heading."""
    (table,) = page.tables(heading)
    return {
        strip_code_marks(row["name"]): (row["type"], set(row["labels"].replace("`", "").replace(",", " ").split()))
        for row in table
    }
