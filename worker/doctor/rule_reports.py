"""What each browsing worker says of its list rules, in Redis, and the doctor's verdicts on it and on the file."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.list_rules import digest_file, read_list_rules
from contract.settings.reading import Settings
from worker.doctor.finding import Finding, Severity, approve
from worker.redis.client import RedisClient, to_pairs

REPORT_MS: Final = 60_000  # between two reports of a worker that say the same
STALE_MS: Final = 5 * REPORT_MS  # the worker of an older report does not run
TTL_S: Final = 24 * 3_600
SENTENCES_MAX: Final = 20


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker uses: the number of rules and the digest of the file that has them.

    `refused`: why the present file is not used. `unknown`: names that the catalogue does not have, some of them.
    `suspended`: rules that exclude every item.
    """

    rules: int
    digest: str
    refused: str
    unknown: tuple[str, ...]
    suspended: tuple[str, ...]
    told_ms: int = 0


class RuleReporter:
    """Writes the report of this worker when it changes, and once in `REPORT_MS`."""

    def __init__(self, client: RedisClient, prefix: str, instance: str) -> None:
        self._client, self._key, self._instance = client, report_key(prefix), instance
        self._written: RuleReport | None = None

    def write(self, report: RuleReport, now_ms: int) -> None:
        """Raises `Unavailable`; then the next call writes it."""
        report = replace(report, unknown=report.unknown[:SENTENCES_MAX], told_ms=now_ms)
        written = self._written
        if written and now_ms - written.told_ms < REPORT_MS and replace(written, told_ms=now_ms) == report:
            return
        self._client.delete_other_type(self._key, "hash")
        self._client.pipeline(
            [("HSET", self._key, self._instance, msgspec.json.encode(report)), ("EXPIRE", self._key, TTL_S)]
        )
        self._written = report


def report_key(prefix: str) -> str:
    return f"{prefix}list_rules"


def check_rule_file(settings: Settings, features: FeatureSet) -> Iterator[Finding]:
    """The verdict on the file of list rules, if the settings name one."""
    if not settings.lists.rules:
        return
    subject = f"list rules {settings.lists.rules}"
    try:
        rules = read_list_rules(Path(settings.lists.rules), features)
        yield approve(subject, f"{len(rules)} rules.")
    except BadConfig as error:
        yield from (Finding(Severity.ERROR, subject, text) for text in error.errors)


def check_reports(settings: Settings, client: RedisClient, now_ms: int | None = None) -> Iterator[Finding]:
    """What browsing workers that run say of their rules, beyond what is as it should be."""
    if not settings.lists.rules:
        return
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    (reply,) = client.pipeline([("HGETALL", report_key(settings.redis.prefix))])
    digest = digest_file(Path(settings.lists.rules))
    for instance, value in to_pairs(reply):
        try:
            report = msgspec.json.decode(value, type=RuleReport)
        except msgspec.MsgspecError:
            continue
        if now_ms - report.told_ms < STALE_MS:
            yield from judge_report(f"list rules of worker {instance.decode(errors='replace')}", report, digest)


def judge_report(subject: str, report: RuleReport, digest: str) -> Iterator[Finding]:
    """The verdicts on one worker; `digest`: of the file that the doctor sees."""
    findings = list[Finding]()
    if report.refused:
        text = f"The worker keeps {report.rules} former rules. {report.refused}"
        findings.append(Finding(Severity.ERROR, subject, text))
    elif digest and report.digest != digest:
        text = "The worker should have read the file that is here. Found that it uses another one."
        findings.append(Finding(Severity.WARNING, subject, text))
    for names in report.suspended:
        text = f"Rules should leave an item. Found none that `{names}` leaves: lists have popular items."
        findings.append(Finding(Severity.ERROR, subject, text))
    findings += (Finding(Severity.WARNING, subject, sentence) for sentence in report.unknown)
    yield from findings or [approve(subject, f"It uses {report.rules} rules.")]
