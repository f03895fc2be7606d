"""What the doctor finds in descriptions of topics."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest

from contract.settings.reading import Settings
from worker.doctor.finding import Finding, Severity
from worker.doctor.topic_checks import TopicChecks, build_configs
from worker.kafka.admin import DENIED_TOPIC, TopicSetup

SETTINGS: Final = Settings()
NAMES: Final = SETTINGS.topics.names_by_kind()
DEFAULTS: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "2",
    "min.compaction.lag.ms": "0",
}
CREATED: Final = {
    NAMES[kind]: TopicSetup(4, 3, "an id", {**DEFAULTS, **config}) for kind, config in build_configs(SETTINGS).items()
}


def check(states: Mapping[str, TopicSetup]) -> list[Finding]:
    return TopicChecks(SETTINGS, states, brokers=(1, 2, 3)).run(NAMES)


def change(kind: str, **config: str) -> dict[str, TopicSetup]:
    """The topics as created, but for some settings of one."""
    state = CREATED[NAMES[kind]]
    settings = {name.replace("_", "."): value for name, value in config.items()}
    return CREATED | {NAMES[kind]: replace(state, config={**(state.config or {}), **settings})}


def test_topics_as_the_worker_creates_them_have_no_findings() -> None:
    assert check(CREATED) == []


def test_a_missing_topic_is_an_error_with_the_command_that_creates_it() -> None:
    states = {name: state for name, state in CREATED.items() if name != "shop.erasures"}

    (finding,) = check(states)

    assert (finding.severity, finding.subject) == (Severity.ERROR, "shop.erasures")
    assert finding.command == (
        "kafka-topics.sh --bootstrap-server localhost:9092 --create --topic shop.erasures --partitions 4"
        " --config cleanup.policy=compact --config min.compaction.lag.ms=604800000"
    )


def test_joined_topics_with_fewer_partitions_are_errors_with_the_command_that_adds_them() -> None:
    (finding,) = check(CREATED | {"shop.labels": replace(CREATED["shop.labels"], partitions=1)})

    assert finding.severity == Severity.ERROR
    assert (
        finding.command
        == "kafka-topics.sh --bootstrap-server localhost:9092 --alter --topic shop.labels --partitions 4"
    )


@pytest.mark.parametrize(
    ("states", "severity", "subject", "mended"),
    [
        (
            change("products", cleanup_policy="delete", retention_ms="60000"),
            "error",
            "shop.products",
            "cleanup.policy=compact",
        ),
        (change("products", cleanup_policy="compact,delete"), "error", "shop.products", "cleanup.policy=compact"),
        (change("erasures", cleanup_policy="delete"), "error", "shop.erasures", "cleanup.policy=compact"),
        (change("orders", cleanup_policy="compact"), "error", "shop.orders", "cleanup.policy=delete"),
        (
            change("erasures", min_compaction_lag_ms="0"),
            "warning",
            "shop.erasures",
            "min.compaction.lag.ms=604800000",
        ),
        (change("labels", retention_ms="604800000"), "warning", "shop.labels", "retention.ms=2595600000"),
        (change("feedback", retention_ms="604800000"), "warning", "shop.feedback", "retention.ms=2595600000"),
        (change("searches", retention_ms="3600000"), "warning", "shop.searches", "retention.ms=86400000"),
        (change("clicks", retention_bytes="1000000"), "warning", "shop.clicks", "retention.bytes=-1"),
        (change("orders", max_message_bytes="2000000"), "warning", "shop.dead-letters", "max.message.bytes=2000000"),
        (change("dead_letters", max_message_bytes="1000"), "warning", "shop.dead-letters", "max.message.bytes=1048588"),
        (change("orders", min_insync_replicas="3"), "warning", "shop.orders", "min.insync.replicas=2"),
        (change("orders", min_insync_replicas="1"), "warning", "shop.orders", "min.insync.replicas=2"),
    ],
)
def test_a_setting_that_loses_or_blocks_records_is_found_with_the_command_that_mends_it(
    states: Mapping[str, TopicSetup], severity: str, subject: str, mended: str
) -> None:
    (finding,) = check(states)

    assert (finding.severity, finding.subject) == (severity, subject)
    assert finding.command.endswith(f"--entity-name {subject} --add-config {mended}")


def test_a_topic_without_limits_need_not_be_compacted() -> None:
    assert check(change("products", cleanup_policy="delete", retention_ms="-1")) == []


def test_one_copy_on_several_brokers_is_a_warning() -> None:
    (finding,) = check(CREATED | {"shop.orders": replace(CREATED["shop.orders"], replicas=1)})

    assert finding.text == "Each partition should have copies on 3 brokers. Found 1 copy."


def test_denied_settings_are_one_warning() -> None:
    (finding,) = check({name: replace(state, config=None) for name, state in CREATED.items()})

    assert (finding.severity, finding.subject) == (Severity.WARNING, "permissions")


def test_brokers_without_topic_ids_are_one_warning() -> None:
    (finding,) = check({name: replace(state, topic_id="") for name, state in CREATED.items()})

    assert "kafka.topic_ids = false" in finding.text


@pytest.mark.parametrize("kind", ["orders", "clicks", "labels", "scored"])
def test_a_topic_of_events_that_takes_the_time_of_the_broker_is_found(kind: str) -> None:
    (finding,) = check(change(kind, message_timestamp_type="LogAppendTime"))
    assert (finding.severity, finding.subject) == (Severity.WARNING, NAMES[kind])
    assert finding.command.endswith("--add-config message.timestamp.type=CreateTime")
    assert check(change("decisions", message_timestamp_type="LogAppendTime")) == []


def test_too_few_copies_are_found_with_the_plan_that_adds_some() -> None:
    (finding,) = check(CREATED | {NAMES["orders"]: replace(CREATED[NAMES["orders"]], replicas=1)})
    _, _, plan = finding.command.partition("<(echo '")
    assert finding.command.startswith("kafka-reassign-partitions.sh --bootstrap-server localhost:9092 --execute")
    partitions = json.loads(plan.removesuffix("')"))["partitions"]
    assert [copies["partition"] for copies in partitions] == [0, 1, 2, 3]
    assert [copies["replicas"] for copies in partitions] == [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]


def test_a_topic_that_the_user_may_not_see_is_found_with_the_command_that_grants_it() -> None:
    (finding,) = check(CREATED | {NAMES["orders"]: DENIED_TOPIC})
    assert (finding.severity, finding.subject) == (Severity.ERROR, NAMES["orders"])
    assert finding.command.startswith("kafka-acls.sh --bootstrap-server localhost:9092 --add")
    assert finding.command.endswith("--operation Read --topic shop.orders")
