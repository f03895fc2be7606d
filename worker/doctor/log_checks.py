"""How old the catalogue is, how far lanes lag, and whether a clock is ahead, from the ends of logs. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from transport.records import TopicPartition
from worker.doctor.finding import SET_CLOCK, Finding, Severity, approve

CLOCK_MS_MAX: Final = 5_000
CATALOGUE_DAYS_MAX: Final = 30
LAG_S_MAX: Final = 60
LEARNER: Final = "learner"
LEARNER_LAG_S_MAX: Final = 3_600.0  # it learns in batches
DAY_MS: Final = 86_400_000


class Reader(NamedTuple):
    """What reads for a group: a lane or the joiner, and the command that starts it."""

    subject: str
    command: str


def check_catalogue(
    topic: str, ends: Mapping[TopicPartition, int], latest_ms: int | None, now_ms: int, servers: str
) -> Iterator[Finding]:
    """The verdict on the topic of products; `latest_ms`: the time of its newest record, None if it is not known."""
    subject = f"catalogue {topic}"
    if not any(end for partition, end in ends.items() if partition.topic == topic):
        text = "The topic should have products: lists need items. Found no record: send them (docs/events.md)."
        yield Finding(Severity.WARNING, subject, text, format_send(topic, servers))
    elif latest_ms is not None and now_ms - latest_ms > CATALOGUE_DAYS_MAX * DAY_MS:
        days = (now_ms - latest_ms) // DAY_MS
        text = f"Products should change within {CATALOGUE_DAYS_MAX} days. Found the newest {days} days old."
        yield Finding(Severity.WARNING, subject, text, format_send(topic, servers))
    else:
        age = "of unknown age" if latest_ms is None else f"{max(now_ms - latest_ms, 0) / 3_600_000:.1f} hours old"
        yield approve(subject, f"The newest product is {age}.")


def format_send(topic: str, servers: str) -> str:
    """The command that sends the catalogue from a file with lines of an item's id, a tab and the product."""
    return (
        f"kafka-console-producer.sh --bootstrap-server {servers} --topic {topic}"
        " --property parse.key=true < products.tsv"
    )


def check_lag(
    reader: Reader,
    group: str,
    commits: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    ages_s: Mapping[TopicPartition, float],
    lag_s_max: float = LAG_S_MAX,
) -> Iterator[Finding]:
    """The verdict on a lane or the joiner; `ages_s`: of the next record of partitions that lag, as far as known."""
    subject, command = reader
    if not commits:
        place = "The bundle" if subject == LEARNER else f"The group {group}"
        text = f"{place} should have the offsets that were read. Found none: it has not run, or they expired."
        yield Finding(Severity.WARNING, subject, text, command)
        return
    records = sum(max(end - commits.get(partition, 0), 0) for partition, end in ends.items())
    oldest, age_s = max(ages_s.items(), key=lambda item: item[1], default=(None, 0.0))
    if oldest is not None and age_s > lag_s_max:
        yield Finding(
            Severity.WARNING,
            subject,
            f"The next record should be younger than {lag_s_max:g} s. Found {records} records waiting, the oldest for "
            f"{age_s:.0f} s in {oldest.log_text()}: start more processes, or look at their /readyz.",
            command,
        )
    else:
        yield approve(subject, f"{records} offsets behind the ends of its topics.")


def check_clock(latest_ms: Mapping[TopicPartition, int], now_ms: int) -> Finding:
    """The verdict on clocks, from the Kafka times of the newest records: none should be in the future."""
    partition, newest_ms = max(latest_ms.items(), key=lambda item: item[1], default=(None, 0))
    if partition is not None and newest_ms - now_ms > CLOCK_MS_MAX:
        return Finding(
            Severity.WARNING,
            "clock",
            "Brokers, producers and this machine should have the same time. Found a record of "
            f"{partition.log_text()} {(newest_ms - now_ms) / 1000:.1f} s in the future.",
            SET_CLOCK,
        )
    return approve("clock", "No newest record is in the future of this machine's clock.")
