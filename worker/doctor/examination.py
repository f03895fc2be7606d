"""`python -m worker doctor`, and its cheap checks when a worker starts: is everything set up as shopstream needs it?"""

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from contract.errors import ShopstreamError, Unavailable
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from contract.settings.servers import RegistrySettings
from worker.doctor.broker_checks import explain_away
from worker.doctor.bundle_checks import check_bundle
from worker.doctor.finding import Finding, Severity, approve, sort_findings
from worker.doctor.kafka_examination import KafkaExamination
from worker.doctor.redis_checks import check_redis, check_rights
from worker.doctor.rule_reports import check_reports, check_rule_file
from worker.doctor.topic_checks import TopicChecks
from worker.kafka.admin import KafkaAdmin
from worker.redis.cluster import connect, connect_cache

log = logging.getLogger(__name__)


def examine(settings: Settings, kinds: Iterable[str], *, uses_redis: bool = True) -> list[Finding]:
    """What is cheap: verdicts on the topics of these kinds and on Redis, errors first; never raises `Unavailable`."""
    return sort_findings([*_examine_topics(settings, kinds), *(_examine_redis(settings) if uses_redis else ())])


def examine_all(settings: Settings, features: FeatureSet, lanes: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Every verdict, errors first; `lanes`: the kinds of topics that each reads."""
    findings = _examine_topics(settings, settings.topics.names_by_kind())
    if not is_kafka_away(findings, settings):
        findings += KafkaExamination(settings, lanes).run()
    findings += _examine_redis(settings)
    findings += _examine_reports(settings)
    findings += check_registry(settings.registry)
    findings += check_bundle(settings, features)
    findings += check_rule_file(settings, features)
    findings.append(approve("features", f"{len(features.features)} features are declared in {settings.features}."))
    return sort_findings(findings)


def run_doctor(settings: Settings, features: FeatureSet, lanes: Mapping[str, Sequence[str]], *, as_json: bool) -> int:
    """Print all verdicts; the exit status: 1 if there is an error, else 0."""
    findings = examine_all(settings, features, lanes)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        print("\n".join(format_table(findings)))
    return int(any(finding.severity == Severity.ERROR for finding in findings))


def format_table(findings: list[Finding]) -> list[str]:
    """One line for each verdict, followed by its command, and a summary."""
    width = max((len(finding.subject) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity:7}  {finding.subject:{width}}  {finding.text}")
        if finding.command:
            lines.append(f"{'':7}  {'':{width}}  $ {finding.command}")
    counts = [sum(finding.severity == severity for finding in findings) for severity in Severity]
    return [*lines, "{} errors, {} warnings, {} as they should be.".format(*counts)]


def start_checks(settings: Settings, kinds: Iterable[str], *, uses_redis: bool = True) -> None:
    """Log all findings, from a thread of its own: a worker does not wait for them."""
    names = list(kinds)

    def log_findings() -> None:
        try:
            for finding in examine(settings, names, uses_redis=uses_redis):
                if finding.severity == Severity.OK:
                    continue
                level = logging.ERROR if finding.severity == Severity.ERROR else logging.WARNING
                command = f" Command: {finding.command}" if finding.command else ""
                log.log(level, "Start check of %s: %s%s", finding.subject, finding.text, command)
        except Exception:
            log.exception("The start checks failed, and the worker goes on.")

    threading.Thread(target=log_findings, name="start-checks", daemon=True).start()


def is_kafka_away(findings: Iterable[Finding], settings: Settings) -> bool:
    """Whether Kafka gave no answer: further questions would wait in vain."""
    return any(finding.subject == name_kafka(settings) for finding in findings)


def name_kafka(settings: Settings) -> str:
    return f"kafka {settings.kafka.bootstrap_servers}"


def check_registry(registry: RegistrySettings) -> Iterator[Finding]:
    """The verdict on the schema registry, if the settings name one."""
    if not registry.url:
        return
    from transport.schemas.deserializer import Deserializer  # whose packages are an extra

    subject = f"registry {registry.url}"
    try:
        Deserializer(registry).check()
        yield approve(subject, "It answers.")
    except ShopstreamError as error:
        yield Finding(Severity.ERROR, subject, str(error), f"curl {registry.url}/subjects")


def _examine_topics(settings: Settings, kinds: Iterable[str]) -> list[Finding]:
    admin, names = KafkaAdmin(kafka=settings.kafka), list(kinds)
    try:
        states = admin.describe_topics([*settings.topics.names_by_kind().values(), *settings.event_topics().added])
        checks = TopicChecks(settings, states, sorted(admin.list_brokers()))
        findings = checks.run(names)
        return [*findings, *checks.approve(findings)]
    except Unavailable as error:
        return [explain_away(error, settings.kafka)]


def _examine_redis(settings: Settings) -> list[Finding]:
    findings = list[Finding]()
    try:
        with closing(connect(settings.redis)) as client:
            findings += [*check_redis(client), check_rights(client, settings.redis.prefix)]
            cache = connect_cache(settings.redis, client)
            if cache is not client:
                with closing(cache):
                    findings += [*check_redis(cache), check_rights(cache, settings.redis.prefix)]
    except ShopstreamError as error:
        findings.append(Finding(Severity.ERROR, "redis", str(error)))
    return findings


def _examine_reports(settings: Settings) -> list[Finding]:
    """What workers say of their list rules; nothing where Redis gives no answer, which `_examine_redis` tells."""
    try:
        with closing(connect(settings.redis)) as client, closing(connect_cache(settings.redis, client)) as cache:
            return list(check_reports(settings, cache))
    except ShopstreamError:
        return []
