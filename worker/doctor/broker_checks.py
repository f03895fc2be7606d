"""What is wrong with the brokers: their addresses as seen from here, and limits that processes run into."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Final

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from worker.doctor.finding import Finding, Severity, approve
from worker.kafka.producer_clients import TRANSACTION_MS_MIN

CONNECT_S: Final = 3.0
COMMITS_MINUTES_MIN: Final = 1_440  # a lane may be down for a day


def check_addresses(addresses: Mapping[int, tuple[str, int]], servers: str) -> Iterator[Finding]:
    """Whether each broker answers at the address that it advertises, by its id."""
    subject = f"kafka {servers}"
    refused = {}
    for broker, (host, port) in addresses.items():
        try:
            with closing(socket.create_connection((host, port), CONNECT_S)):
                pass
        except OSError as error:
            refused[broker] = f"{host}:{port} ({error})"
    if refused:
        yield Finding(
            Severity.ERROR,
            subject,
            "Every broker should be reachable at the address that it advertises (advertised.listeners). Found none at "
            f"{', '.join(refused.values())}. Set it in that broker's server.properties, then restart the broker.",
            "; ".join(
                f"sed -i 's|^advertised.listeners=.*|advertised.listeners=PLAINTEXT://REACHABLE_HOST:{addresses[broker][1]}|'"
                f" server.properties  # of broker {broker}"
                for broker in refused
            ),
        )
    else:
        names = ", ".join(f"{host}:{port}" for host, port in addresses.values())
        yield approve(subject, f"{len(addresses)} brokers answer: {names}.")


def find_unreachable(servers: str) -> list[str]:
    """The addresses of `kafka.bootstrap_servers` that take no connection, each with the reason."""
    unreachable = []
    for address in filter(None, map(str.strip, servers.split(","))):
        host, _, port = address.rpartition("://")[2].rpartition(":")
        try:
            with closing(socket.create_connection((host.strip("[]"), int(port)), CONNECT_S)):
                pass
        except ValueError:
            unreachable.append(f"{address} (HOST:PORT is needed)")
        except OSError as error:
            unreachable.append(f"{address} ({error})")
    return unreachable


def explain_away(error: Unavailable, kafka: KafkaSettings) -> Finding:
    """The verdict on brokers that gave no answer."""
    subject = f"kafka {kafka.bootstrap_servers}"
    if unreachable := find_unreachable(kafka.bootstrap_servers):
        text = f"`kafka.bootstrap_servers` should name brokers. Found none at {', '.join(unreachable)}."
    else:
        text = (
            f"{str(error).rstrip('.')}. Something listens there: it may be no Kafka, or want TLS or a login that "
            "`kafka.client` does not have."
        )
    return Finding(
        Severity.ERROR, subject, text, f"kafka-broker-api-versions.sh --bootstrap-server {kafka.bootstrap_servers}"
    )


def check_limits(kafka: KafkaSettings, config: Mapping[str, str] | None) -> Iterator[Finding]:
    """Limits of the brokers compared with the settings; `config` is that of one broker, None if it is not readable."""
    subject = "kafka limits"
    if config is None:
        yield Finding(
            Severity.WARNING,
            subject,
            "The user should be allowed to read the settings of brokers (DESCRIBE_CONFIGS on the cluster). Found it "
            "denied: session and transaction times are not checked.",
        )
        return
    findings = [*find_short_times(kafka, config, subject)]
    if config.get("auto.create.topics.enable") == "true":
        findings.append(
            Finding(
                Severity.WARNING,
                subject,
                "Brokers should create no topics by themselves. Found auto.create.topics.enable=true: a misspelt name "
                "becomes a topic without a writer.",
            )
        )
    yield from findings or [approve(subject, "Session, transaction and offset times of the brokers suit the settings.")]
    if version := config.get("inter.broker.protocol.version"):
        yield approve("kafka version", f"The brokers speak the protocol of {version}.")


def find_short_times(kafka: KafkaSettings, config: Mapping[str, str], subject: str) -> Iterator[Finding]:
    least, most = (
        int(config.get(f"group.{end}.session.timeout.ms", kafka.session_timeout_ms)) for end in ("min", "max")
    )
    if not least <= kafka.session_timeout_ms <= most:
        yield Finding(
            Severity.ERROR,
            subject,
            f"`kafka.session_timeout_ms` should be from {least} to {most}, as the brokers allow. "
            f"Found {kafka.session_timeout_ms}: no process can join its group.",
        )
    longest, needed = (
        int(config.get("transaction.max.timeout.ms", 2**31)),
        max(kafka.session_timeout_ms, TRANSACTION_MS_MIN),
    )
    if kafka.transactions and longest < needed:
        yield Finding(
            Severity.ERROR,
            subject,
            f"Brokers should allow transactions of {needed} ms. Found transaction.max.timeout.ms={longest}.",
        )
    minutes = int(config.get("offsets.retention.minutes", COMMITS_MINUTES_MIN))
    if minutes < COMMITS_MINUTES_MIN:
        yield Finding(
            Severity.WARNING,
            subject,
            f"Committed offsets should stay for {COMMITS_MINUTES_MIN} minutes, as long as a lane may be down. "
            f"Found offsets.retention.minutes={minutes}.",
        )
