"""docs/metrics.md describes the metrics that a process exports."""

import re
from types import ModuleType

import pytest

from tests.docs.pages import METRICS, PAGES
from tests.docs.registry import describe_metrics, list_metrics, metric_name, read_documented_metrics
from training.monitor import metrics as monitor_metrics
from worker.ops import metrics as worker_metrics
from worker.ops.steps import STEPS

MODULES_BY_HEADING = {"Metrics": worker_metrics, "Monitor": monitor_metrics}


@pytest.mark.parametrize(("heading", "module"), MODULES_BY_HEADING.items(), ids=MODULES_BY_HEADING)
def test_every_metric_is_documented_with_its_type_and_labels(heading: str, module: ModuleType) -> None:
    assert read_documented_metrics(METRICS, heading) == describe_metrics(list_metrics(module))


@pytest.mark.parametrize("module", MODULES_BY_HEADING.values(), ids=MODULES_BY_HEADING)
def test_all_metrics_of_a_process_are_declared_in_one_module(module: ModuleType) -> None:
    names = {family.name for family in module.REGISTRY.collect() if family.name.startswith("shopstream_")}

    assert names == {family.name for metric in list_metrics(module) for family in metric.describe()}


def test_pages_name_only_metrics_that_exist() -> None:
    known = {metric_name(metric) for module in MODULES_BY_HEADING.values() for metric in list_metrics(module)}

    for page in PAGES:
        for name in re.findall(r"\bshopstream_[a-z_]+", page.text):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in known, page.path.name


def test_every_timed_step_is_documented() -> None:
    (table,) = METRICS.tables("Metrics")
    meaning = next(row["what it is"] for row in table if "step_seconds" in row["name"])

    assert set(re.findall(r"`(\w+)`", meaning)) == set(STEPS) - {"idle", "commit"}
