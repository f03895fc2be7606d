"""deploy/prometheus/alerts.yml is complete, and docs/metrics.md and docs/operations.md describe it."""

import re
from typing import Any

import pytest
import yaml

from tests.checkout import ROOT
from tests.docs.pages import METRICS, OPERATIONS, PAGES, strip_code_marks
from tests.docs.registry import list_metrics, metric_name
from training.monitor import metrics as monitor_metrics
from worker.ops import metrics as worker_metrics

PATH = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALERTS: list[dict[str, Any]] = [rule for group in yaml.safe_load(PATH.read_text())["groups"] for rule in group["rules"]]
NAMES = [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_has_a_severity_a_short_summary_and_a_description(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert 10 < len(alert["annotations"]["summary"]) < 80
    assert alert["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_uses_metrics_and_labels_that_exist(alert: dict[str, Any]) -> None:
    metrics = {metric_name(m): m for module in (worker_metrics, monitor_metrics) for m in list_metrics(module)}
    used = re.findall(r"shopstream_[a-z_]+", alert["expr"])
    labels = {label for name in used for label in metrics[name]._labelnames} | {"service", "instance"}

    assert set(re.findall(r"\$labels\.(\w+)", str(alert["annotations"]))) <= labels


def test_a_service_without_a_target_raises_an_alert() -> None:
    (expression,) = (alert["expr"] for alert in ALERTS if alert["alert"] == "ShopstreamProcessAbsent")
    scraped = yaml.safe_load((PATH.parent / "prometheus.yml").read_text())["scrape_configs"][0]
    services = {name for discovery in scraped["dns_sd_configs"] for name in discovery["names"]}

    # the monitor runs only where a model learns, and the page says how to add it
    assert set(re.findall(r'absent\(up\{job="shopstream", service="(\w+)"\}\)', expression)) == services - {"monitor"}
    assert 'absent(up{job="shopstream", service="monitor"})' in OPERATIONS.section("Model monitoring")


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_the_starter_alerts_document_its_expression_and_duration(alert: dict[str, Any]) -> None:
    (table,) = METRICS.tables("Starter alerts")
    durations = {strip_code_marks(row["expression"]): row["for"] for row in table}

    assert durations[alert["expr"]] == alert.get("for", "0m")


def test_pages_name_only_alerts_that_exist_and_operations_all_of_the_monitor() -> None:
    pattern = re.compile(r"`(Shopstream[A-Z]\w+)`")

    assert {name for page in PAGES if page.path.name != "CHANGELOG.md" for name in pattern.findall(page.text)} <= set(
        NAMES
    )
    documented = set(pattern.findall(OPERATIONS.section("Model monitoring")))
    of_workers = {"ShopstreamProcessDown", "ShopstreamDegraded"}
    of_workers |= {"ShopstreamBlocked", "ShopstreamListsLate", "ShopstreamOpenTransaction"}
    of_workers |= {"ShopstreamListRulesRefused", "ShopstreamForeignLabels"}
    assert documented == set(NAMES) - of_workers - {"ShopstreamLearnerFrozen"}
