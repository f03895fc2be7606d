"""What browsing workers tell of their list rules, and what the doctor makes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from contract.settings.list_rules import digest_file
from contract.settings.reading import Settings
from contract.settings.worker import ListSettings
from tests.worker.events import FEATURES, NOW_MS
from worker.doctor.finding import Severity
from worker.doctor.rule_reports import (
    REPORT_MS,
    STALE_MS,
    RuleReport,
    RuleReporter,
    check_reports,
    check_rule_file,
    judge_report,
    report_key,
)
from worker.redis.client import RedisClient

REPORT = RuleReport(rules=2, digest="d", refused="", unknown=(), suspended=())


@pytest.fixture
def client(redis_url: str) -> Iterator[RedisClient]:
    client = RedisClient(url=redis_url, timeout_s=20)
    yield client
    client.close()


def make_settings(path: Path) -> Settings:
    return Settings().model_copy(update={"lists": ListSettings(rules=str(path))})


def judge(report: RuleReport, digest: str = "d") -> list[tuple[str, str]]:
    return [(finding.severity.value, finding.text) for finding in judge_report("worker 0", report, digest)]


def test_a_report_that_is_as_it_should_be_is_approved() -> None:
    assert judge(REPORT) == [("ok", "It uses 2 rules.")]
    assert judge(REPORT, digest="") == [("ok", "It uses 2 rules.")]  # the doctor sees no file: that is told apart


def test_a_refused_file_and_suspended_rules_are_errors_and_unknown_names_warnings() -> None:
    report = replace(REPORT, refused="It should be TOML.", suspended=("a, b",), unknown=("No such brand.",))

    assert judge(report) == [
        ("error", "The worker keeps 2 former rules. It should be TOML."),
        ("error", "Rules should leave an item. Found none that `a, b` leaves: lists have popular items."),
        ("warning", "No such brand."),
    ]


def test_a_worker_that_uses_another_file_is_a_warning() -> None:
    ((severity, text),) = judge(REPORT, digest="e")

    assert severity == "warning"
    assert "uses another one" in text


def test_the_doctor_reads_the_reports_of_workers_that_run(client: RedisClient, tmp_path: Path) -> None:
    # given a worker that runs, one that is gone, and what is no report
    path = tmp_path / "rules.toml"
    path.write_text("rules = []")
    report = replace(REPORT, digest=digest_file(path))
    RuleReporter(client, "shop:", "1").write(report, NOW_MS)
    RuleReporter(client, "shop:", "gone").write(report, NOW_MS - STALE_MS)
    client.pipeline([("HSET", report_key("shop:"), "odd", b"{")])
    # when
    findings = list(check_reports(make_settings(path), client, NOW_MS + 1))
    # then
    assert [(finding.severity, finding.subject) for finding in findings] == [
        (Severity.OK, "list rules of worker 1"),
    ]


def test_a_report_is_written_when_it_changes_and_once_a_minute(client: RedisClient) -> None:
    reporter = RuleReporter(client, "shop:", "1")

    def write_and_look(report: RuleReport, now_ms: int) -> bool:
        client.pipeline([("DEL", report_key("shop:"))])
        reporter.write(report, now_ms)
        (exists,) = client.pipeline([("EXISTS", report_key("shop:"))])
        return bool(exists)

    assert write_and_look(REPORT, NOW_MS)
    assert not write_and_look(REPORT, NOW_MS + 1)
    assert write_and_look(replace(REPORT, rules=3), NOW_MS + 2)
    assert not write_and_look(replace(REPORT, rules=3), NOW_MS + REPORT_MS + 1)
    assert write_and_look(replace(REPORT, rules=3), NOW_MS + REPORT_MS + 2)


def test_the_file_is_judged_without_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    settings = make_settings(path)

    (missing,) = check_rule_file(settings, FEATURES)
    path.write_text("rules = []")
    (right,) = check_rule_file(settings, FEATURES)

    assert (missing.severity, right.severity) == (Severity.ERROR, Severity.OK)
    assert not list(check_rule_file(Settings(), FEATURES))
