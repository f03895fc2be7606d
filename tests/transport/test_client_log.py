"""librdkafka's lines: one for each address and cause, with backoff, which names the setting; refused options."""

import logging

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from contract.errors import BadConfig
from transport.client_log import FORGOTTEN_S, RepetitionFilter, create_client, read_statement

REFUSED = (
    "[thrd:shop:9/bootstrap]: shop:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused "
    "(after {ms}ms in state CONNECT, 3 identical error(s) suppressed)"
)


class LogClock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Log:
    """Passes lines of clients through a filter, and keeps what it lets through."""

    def __init__(self) -> None:
        self.clock = LogClock()
        self._filter = RepetitionFilter(clock_s=self.clock)
        self.lines: list[str] = []

    def say(self, text: str, client: str = "consumer-1") -> None:
        arguments = ("FAIL", f"rdkafka#{client}", text)
        record = logging.LogRecord("librdkafka", logging.ERROR, "", 0, "%s [%s] %s", arguments, None)
        if self._filter.filter(record):
            self.lines.append(record.getMessage())


def test_a_minute_of_refused_connections_of_five_clients_is_a_handful_of_lines() -> None:
    # given
    log = Log()
    # when
    for tenth in range(620):
        log.clock.now_s = tenth / 10
        for client in range(5):
            log.say(REFUSED.format(ms=tenth), f"consumer-{client}")
    # then
    assert len(log.lines) == 5
    assert "shop:9" in log.lines[0]
    assert "Connection refused" in log.lines[0]
    assert "Setting: kafka.bootstrap_servers." in log.lines[0]
    assert sum(int(line.rpartition(" lines like")[0].split()[-1]) for line in log.lines[1:]) > 1_000


def test_another_cause_or_address_is_written_at_once() -> None:
    log = Log()
    log.say(REFUSED.format(ms=1))
    log.say(REFUSED.format(ms=2).replace("shop:9", "other:9"))
    log.say("[thrd:shop:9/bootstrap]: shop:9/bootstrap: SASL authentication error: Authentication failed")
    assert len(log.lines) == 3


def test_a_cause_that_was_gone_for_long_is_written_at_once_again() -> None:
    log = Log()
    for _ in range(9):
        log.say(REFUSED.format(ms=1))
    log.clock.now_s = FORGOTTEN_S + 1
    log.say(REFUSED.format(ms=1))
    assert len(log.lines) == 2


@pytest.mark.parametrize(
    ("text", "address", "setting"),
    [
        (REFUSED.format(ms=0), "shop:9", "kafka.bootstrap_servers"),
        (
            "[thrd:nowhere:9092/bootstrap]: nowhere:9092/bootstrap: Failed to resolve 'nowhere:9092': "
            "Name or service not known (after 12ms in state CONNECT)",
            "nowhere:9092",
            "kafka.bootstrap_servers",
        ),
        (
            "[thrd:sasl_plaintext://b:1/bootstrap]: sasl_plaintext://b:1/bootstrap: SASL authentication error: no",
            "b:1",
            "kafka.client (sasl.mechanism, sasl.username, sasl.password)",
        ),
        (
            "[thrd:b:1/bootstrap]: b:1/bootstrap: Disconnected while requesting ApiVersion: might be caused by "
            "incorrect security.protocol configuration (connecting to a SSL listener?)",
            "b:1",
            "kafka.client (security.protocol)",
        ),
        (
            "[thrd:b:1/bootstrap]: b:1/bootstrap: Receive failed: Invalid response size 1347703880 (0..100000000): "
            "increase receive.message.max.bytes",
            "b:1",
            "kafka.bootstrap_servers: no Kafka is there",
        ),
        ("[thrd:main]: something else", "", ""),
    ],
)
def test_a_line_names_the_address_and_the_setting_that_it_depends_on(text: str, address: str, setting: str) -> None:
    statement = read_statement(text)
    assert (statement.address, statement.setting) == (address, setting)
    assert "thrd" not in statement.cause
    assert "after" not in statement.cause


@pytest.mark.parametrize("kind", [Consumer, AdminClient])
@pytest.mark.parametrize("option", [{"sasl.usernam": "a"}, {"security.protocol": "tls"}, {"ssl.ca.location": "/none"}])
def test_options_that_no_client_takes_are_mistakes_of_the_settings(
    kind: type[Consumer] | type[AdminClient], option: dict[str, str]
) -> None:
    ssl = {"security.protocol": "SSL"} if "ssl.ca.location" in option else {}
    configuration = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0, **ssl, **option}
    if kind is AdminClient:
        del configuration["group.id"]
    with pytest.raises(BadConfig, match=r"`kafka\.client` should have options that librdkafka takes"):
        create_client(kind, configuration)
