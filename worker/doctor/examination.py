"""`python -m worker doctor`, and the same checks when a worker starts: are the servers set up as shopstream needs?"""

import json
import logging
import threading
from collections.abc import Iterable
from contextlib import closing

from contract.errors import ShopstreamError, Unavailable
from contract.settings.reading import Settings
from worker.doctor.redis_checks import check_redis
from worker.doctor.topic_checks import Finding, Severity, TopicChecks
from worker.kafka.admin import KafkaAdmin
from worker.redis.cluster import connect

log = logging.getLogger(__name__)


def examine(settings: Settings, kinds: Iterable[str], *, uses_redis: bool = True) -> list[Finding]:
    """All findings about the topics of these kinds and about Redis, errors first; never raises `Unavailable`."""
    findings = [*_examine_kafka(settings, kinds), *(_examine_redis(settings) if uses_redis else ())]
    return sorted(findings, key=lambda finding: finding.severity)


def run_doctor(settings: Settings, *, as_json: bool) -> int:
    """Print all findings; the exit status: 1 if there is an error, else 0."""
    findings = examine(settings, settings.topics.names_by_kind())
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print("\n".join(format_table(findings)))
    return int(any(finding.severity == Severity.ERROR for finding in findings))


def format_table(findings: list[Finding]) -> list[str]:
    """One line for each finding, followed by its command."""
    if not findings:
        return ["Everything is set up as shopstream needs it."]
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity:7}  {finding.subject:{width}}  {finding.text}")
        if finding.command:
            lines.append(f"{'':7}  {'':{width}}  $ {finding.command}")
    return lines


def start_checks(settings: Settings, kinds: Iterable[str], *, uses_redis: bool = True) -> None:
    """Log all findings, from a thread of its own: a worker does not wait for them."""
    names = list(kinds)

    def log_findings() -> None:
        try:
            for finding in examine(settings, names, uses_redis=uses_redis):
                level = logging.ERROR if finding.severity == Severity.ERROR else logging.WARNING
                command = f" Command: {finding.command}" if finding.command else ""
                log.log(level, "Start check of %s: %s%s", finding.subject, finding.text, command)
        except Exception:
            log.exception("The start checks failed, and the worker goes on.")

    threading.Thread(target=log_findings, name="start-checks", daemon=True).start()


def _examine_kafka(settings: Settings, kinds: Iterable[str]) -> list[Finding]:
    admin, names = KafkaAdmin(kafka=settings.kafka), list(kinds)
    try:
        states = admin.describe_topics([*settings.topics.names_by_kind().values(), *settings.event_topics().added])
        return TopicChecks(settings, states, admin.count_brokers()).run(names)
    except Unavailable as error:
        return [Finding(Severity.ERROR, f"kafka {settings.kafka.bootstrap_servers}", str(error))]


def _examine_redis(settings: Settings) -> list[Finding]:
    try:
        with closing(connect(settings.redis)) as client:
            return list(check_redis(client))
    except ShopstreamError as error:
        return [Finding(Severity.ERROR, "redis", str(error))]
