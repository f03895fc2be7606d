"""`python -m demo replay`: sends a real shop's log to Kafka, optionally at a multiple of its own speed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from contract.settings.reading import Settings
from demo.online_retail.events import OnlineRetail
from demo.producer import RecordProducer, ReplayClock
from demo.simulator.records import SourceRecord

PROGRESS_S: Final = 2.0


def replay(settings: Settings, data: Path, *, speed_up: float, limit: int | None) -> int:
    """Send Online Retail (its first `limit` invoices) to the Kafka of the settings; returns 0 once all is delivered.

    Raises `BadData` if the file is missing, `Unavailable` if Kafka does not accept a record.
    """
    console = Console(stderr=True)
    console.print(f"Reading {data} …")
    source = OnlineRetail(data, limit=limit)
    producer = RecordProducer(kafka=settings.kafka, topics=settings.topics)
    started_s = time.monotonic()
    console.print(f"Sending {len(source.invoices):,} invoices to {settings.kafka.bootstrap_servers}.")
    send_all(
        producer,
        source.records(),
        ReplayClock(speed_up),
        lambda day: console.print(f"{day}: {format_counts(producer)}"),
    )
    seconds = time.monotonic() - started_s
    console.print(
        f"Sent {format_counts(producer)} in {seconds:.1f} s ({producer.sent_by_kind.total() / seconds:,.0f} records/s)."
    )
    console.print(f"Cancelled lines without a matching order: {dict(source.cancellations.unmatched_by)}.")
    return 0


def send_all(
    producer: RecordProducer, records: Iterator[SourceRecord], clock: ReplayClock, report: Callable[[str], None]
) -> None:
    """Send each record when it is due; calls `report` with the simulated day every few seconds."""
    reported_s = time.monotonic()
    for record in records:
        clock.wait_until(record.ts_ms)
        producer.send(record)
        if time.monotonic() - reported_s > PROGRESS_S:
            reported_s = time.monotonic()
            report(time.strftime("%Y-%m-%d", time.gmtime(record.ts_ms / 1000)))
    producer.flush()


def format_counts(producer: RecordProducer) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(producer.sent_by_kind.items()))
