"""What the doctor finds in the rights of a user of Kafka."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from contract.errors import Unavailable
from contract.settings.reading import Settings
from worker.doctor.finding import Severity
from worker.doctor.right_checks import check_topic_rights, try_right

SETTINGS = Settings()
ALL = {name: ["READ", "WRITE", "DESCRIBE"] for name in SETTINGS.topics.names_by_kind().values()}


def test_a_user_with_all_rights_is_approved() -> None:
    (finding,) = check_topic_rights(SETTINGS, ALL)
    assert finding.severity == Severity.OK


def test_brokers_that_do_not_say_give_no_verdict() -> None:
    assert list(check_topic_rights(SETTINGS, {})) == []


@pytest.mark.parametrize(
    ("kind", "allowed", "missing"),
    [
        ("orders", ["DESCRIBE"], "--operation Read --topic shop.orders"),
        ("decisions", ["READ"], "--operation Write --topic shop.decisions"),
        ("scored", ["DESCRIBE"], "--operation Read --operation Write --topic shop.scored"),
        ("dead_letters", ["READ"], "--operation Write --topic shop.dead-letters"),
    ],
)
def test_a_right_that_is_missing_is_found_with_the_command_that_gives_it(
    kind: str, allowed: list[str], missing: str
) -> None:
    (finding,) = check_topic_rights(SETTINGS, {**ALL, SETTINGS.topics.topic_name(kind): allowed})
    assert finding.severity == Severity.WARNING
    assert finding.command.startswith("kafka-acls.sh --bootstrap-server localhost:9092 --add")
    assert finding.command.endswith(missing)


def test_a_right_that_is_tried_and_denied_is_found() -> None:
    def deny() -> None:
        raise Unavailable("No.") from KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))

    denied = try_right("group g", deny, "command")
    assert (denied.severity, denied.command) == (Severity.WARNING, "command")
    assert "denied" in denied.text
    assert try_right("group g", lambda: None, "command").severity == Severity.OK
