"""What the doctor finds in the brokers' addresses and limits."""

import socket

import pytest

from contract.errors import Unavailable
from contract.settings.servers import KafkaSettings
from worker.doctor.broker_checks import check_addresses, check_limits, explain_away
from worker.doctor.finding import Severity

USUAL = {
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "transaction.max.timeout.ms": "900000",
    "offsets.retention.minutes": "10080",
    "auto.create.topics.enable": "false",
}


def test_a_broker_that_advertises_an_address_that_is_not_reachable_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = check_addresses({1: ("127.0.0.1", port), 2: ("nowhere.invalid", 9092)}, "shop:9092")
        assert finding.severity == Severity.ERROR
        assert "advertised.listeners" in finding.text
        assert "nowhere.invalid:9092" in finding.text
        assert "advertised.listeners=PLAINTEXT://REACHABLE_HOST:9092" in finding.command
        assert finding.command.endswith("# of broker 2")
        (finding,) = check_addresses({1: ("127.0.0.1", port)}, "shop:9092")
        assert finding.severity == Severity.OK


@pytest.mark.parametrize(
    ("config", "severity", "words"),
    [
        ({}, Severity.OK, "suit the settings"),
        ({"group.max.session.timeout.ms": "30000"}, Severity.ERROR, "should be from 6000 to 30000"),
        ({"transaction.max.timeout.ms": "10000"}, Severity.ERROR, "transactions of 45000 ms"),
        ({"offsets.retention.minutes": "60"}, Severity.WARNING, "offsets.retention.minutes=60"),
        ({"auto.create.topics.enable": "true"}, Severity.WARNING, "a misspelt name"),
    ],
)
def test_limits_of_brokers_that_do_not_suit_the_settings_are_found(
    config: dict[str, str], severity: Severity, words: str
) -> None:
    (finding,) = check_limits(KafkaSettings(), {**USUAL, **config})
    assert finding.severity == severity
    assert words in finding.text


def test_the_protocol_of_the_brokers_is_told() -> None:
    *_, finding = check_limits(KafkaSettings(), {**USUAL, "inter.broker.protocol.version": "3.9-IV0"})
    assert (finding.severity, finding.subject) == (Severity.OK, "kafka version")
    assert "3.9-IV0" in finding.text


def test_addresses_without_a_broker_are_named_with_the_reason() -> None:
    servers = "127.0.0.1:1, nowhere.invalid:9092,localhost"
    finding = explain_away(Unavailable("Timed out."), KafkaSettings(bootstrap_servers=servers))
    assert (finding.severity, finding.subject) == (Severity.ERROR, f"kafka {servers}")
    assert all(words in finding.text for words in ("127.0.0.1:1 (", "nowhere.invalid:9092 (", "HOST:PORT is needed"))


def test_what_listens_and_does_not_answer_may_be_no_kafka() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        servers = f"127.0.0.1:{server.getsockname()[1]}"
        finding = explain_away(
            Unavailable("Kafka should answer. Found: Timed out."), KafkaSettings(bootstrap_servers=servers)
        )
    assert "may be no Kafka, or want TLS or a login" in finding.text
    assert finding.command.endswith(servers)


def test_limits_that_the_user_may_not_read_are_said() -> None:
    (finding,) = check_limits(KafkaSettings(), None)
    assert (finding.severity, "DESCRIBE_CONFIGS" in finding.text) == (Severity.WARNING, True)
