"""What the doctor finds at the ends of logs: an old catalogue, a lane that lags, a clock that is ahead."""

import pytest

from transport.records import TopicPartition
from worker.doctor.finding import Severity
from worker.doctor.kafka_examination import find_reader
from worker.doctor.log_checks import DAY_MS, LEARNER, LEARNER_LAG_S_MAX, check_catalogue, check_clock, check_lag

PRODUCTS, ORDERS = TopicPartition("shop.products", 0), TopicPartition("shop.orders", 0)
FEEDBACK = TopicPartition("shop.feedback", 0)
NOW_MS = 100 * DAY_MS


@pytest.mark.parametrize(
    ("end", "latest_ms", "severity"),
    [
        (0, None, Severity.WARNING),
        (5, NOW_MS - 40 * DAY_MS, Severity.WARNING),
        (5, NOW_MS - DAY_MS, Severity.OK),
        (5, None, Severity.OK),
    ],
)
def test_a_catalogue_that_is_empty_or_old_is_found(end: int, latest_ms: int | None, severity: Severity) -> None:
    (finding,) = check_catalogue("shop.products", {PRODUCTS: end, ORDERS: 9}, latest_ms, NOW_MS, "kafka:9092")
    assert finding.severity == severity
    is_mended = finding.command.startswith("kafka-console-producer.sh --bootstrap-server kafka:9092 --topic shop.prod")
    assert is_mended == (severity != Severity.OK)


@pytest.mark.parametrize(
    ("commits", "ages_s", "severity", "words"),
    [
        ({}, {}, Severity.WARNING, "has not run"),
        ({ORDERS: 3}, {ORDERS: 900.0}, Severity.WARNING, "Found 7 records waiting, the oldest for 900 s"),
        ({ORDERS: 3}, {ORDERS: 1.0}, Severity.OK, "7 offsets behind"),
        ({ORDERS: 10}, {}, Severity.OK, "0 offsets behind"),
    ],
)
def test_a_lane_that_lags_is_found(
    commits: dict[TopicPartition, int], ages_s: dict[TopicPartition, float], severity: Severity, words: str
) -> None:
    (finding,) = check_lag(find_reader("orders"), "shopstream-orders", commits, {ORDERS: 10}, ages_s)
    assert finding.severity == severity
    assert words in finding.text
    assert finding.subject == "lane orders"
    assert not finding.command or finding.command == "python -m worker score --lane orders"


@pytest.mark.parametrize(
    ("positions", "age_s", "severity", "words"),
    [
        ({}, 0.0, Severity.WARNING, "The bundle should have the offsets that were read"),
        ({FEEDBACK: 3}, 9_000.0, Severity.WARNING, "younger than 3600 s. Found 7 records waiting"),
        ({FEEDBACK: 3}, 600.0, Severity.OK, "7 offsets behind"),
    ],
)
def test_a_learner_that_lags_is_found_with_its_command(
    positions: dict[TopicPartition, int], age_s: float, severity: Severity, words: str
) -> None:
    ages_s = dict.fromkeys(positions, age_s)
    (finding,) = check_lag(find_reader(LEARNER), LEARNER, positions, {FEEDBACK: 10}, ages_s, LEARNER_LAG_S_MAX)
    assert (finding.subject, finding.severity) == ("learner", severity)
    assert words in finding.text
    assert finding.command == ("" if severity == Severity.OK else "python -m training follow")


def test_a_joiner_that_has_not_run_is_found_with_its_command() -> None:
    (finding,) = check_lag(find_reader("feedback"), "shopstream-feedback", {}, {ORDERS: 10}, {})
    assert (finding.subject, finding.command) == ("joiner", "python -m worker feedback")


@pytest.mark.parametrize(("ahead_ms", "severity"), [(60_000, Severity.WARNING), (-60_000, Severity.OK)])
def test_a_record_from_the_future_shows_that_clocks_differ(ahead_ms: int, severity: Severity) -> None:
    assert check_clock({ORDERS: NOW_MS + ahead_ms}, NOW_MS).severity == severity
    assert check_clock({}, NOW_MS).severity == Severity.OK
