"""docs/metrics.md and docs/training.md say what the watcher tells and what it may be told."""

import msgspec
import pytest
from prometheus_client.metrics import MetricWrapperBase

from contract.settings import MonitorConfig
from tests.checkout import ROOT
from tests.docs.pages import METRICS, MarkdownPage, strip_code_marks
from tests.docs.test_metrics import metric_name, metric_type
from training.__main__ import parse_arguments
from training.monitor import metrics

PAGE = MarkdownPage(ROOT / "docs" / "training.md")
REGISTERED = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]


def test_every_metric_of_the_watcher_stands_there_with_its_type_and_labels() -> None:
    registered = {metric_name(m): (metric_type(m), set(m._labelnames)) for m in REGISTERED}

    (table,) = METRICS.tables("The watcher")
    told = {
        strip_code_marks(row["name"]): (row["type"], set(row["labels"].replace("`", "").replace(",", " ").split()))
        for row in table
    }

    assert told == registered


def test_all_metrics_of_the_watcher_are_declared_in_one_file() -> None:
    names = {family.name for family in metrics.REGISTRY.collect() if family.name.startswith("shopstream_")}

    assert names == {described.name for m in REGISTERED for described in m.describe()}


def test_every_setting_of_the_watcher_stands_there_with_its_default() -> None:
    table = PAGE.tables("What watch does")[1]
    defaults = {name: msgspec.json.encode(default).decode() for name, default in MonitorConfig().model_dump().items()}

    assert {strip_code_marks(row["setting"]): strip_code_marks(row["default"]) for row in table} == defaults


@pytest.mark.parametrize(("command", "heading"), [("watch", "What watch does"), ("skew", "What skew does")])
def test_every_option_stands_there(command: str, heading: str) -> None:
    args = vars(parse_arguments([command]))

    for name in args.keys() - {"command", "run"}:
        assert f"`--{name.replace('_', '-')}" in PAGE.section(heading)
