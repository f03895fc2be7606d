"""docs/metrics.md and the metrics of a process are the same."""

import re

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tests.docs.pages import METRICS, PAGES, strip_code_marks
from training.monitor import metrics as telemetry
from worker.ops import metrics
from worker.ops.steps import STEPS

REGISTERED = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def metric_name(metric: MetricWrapperBase) -> str:
    (described,) = metric.describe()
    return f"{described.name}_total" if isinstance(metric, Counter) else str(described.name)


def metric_type(metric: MetricWrapperBase) -> str:
    return next(kind.__name__.lower() for kind in (Counter, Gauge, Histogram) if isinstance(metric, kind))


def test_every_metric_stands_there_with_its_type_and_labels() -> None:
    # Given what a process registers
    registered = {metric_name(m): (metric_type(m), set(m._labelnames)) for m in REGISTERED}

    # When the table is read
    (table,) = METRICS.tables("Metrics")
    documented = {
        strip_code_marks(row["name"]): (row["type"], set(row["labels"].replace("`", "").replace(",", " ").split()))
        for row in table
    }

    # Then it is the same
    assert documented == registered


def test_all_metrics_of_a_process_are_declared_in_one_file() -> None:
    names = {family.name for family in metrics.REGISTRY.collect() if family.name.startswith("shopstream_")}

    assert names == {described.name for m in REGISTERED for described in m.describe()}


def test_every_page_names_metrics_that_exist() -> None:
    watched = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
    known = {metric_name(metric) for metric in (*REGISTERED, *watched)}

    for page in PAGES:
        for name in re.findall(r"\bshopstream_[a-z_]+", page.text):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known, page.path.name


def test_every_step_that_is_timed_is_named() -> None:
    (table,) = METRICS.tables("Metrics")
    meaning = next(row["what it is"] for row in table if "step_seconds" in row["name"])

    assert set(re.findall(r"`(\w+)`", meaning)) == set(STEPS) - {"idle", "commit"}
