"""`python -m demo replay`: a real shop's log through Kafka, at the speed that is asked for."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console

from contract.settings import Settings
from demo.happenings import Happening
from demo.online_retail import OnlineRetail
from demo.sender import Pace, Sender

PROGRESS_S: Final = 2.0


def replay(settings: Settings, data: Path, *, speed_up: float, limit: int | None) -> int:
    """Send Online Retail (its first `limit` invoices) to the settings' Kafka; 0 when every record has arrived.

    Raises `BadData` without the file, `Unavailable` when Kafka does not take a record.
    """
    console = Console(stderr=True)
    console.print(f"Reading {data} …")
    source = OnlineRetail(data, limit=limit)
    sender, begun_s = Sender(kafka=settings.kafka, topics=settings.topics), time.monotonic()
    console.print(f"Sending {len(source.invoices):,} invoices to {settings.kafka.bootstrap_servers}.")
    send_all(sender, source.happenings(), Pace(speed_up), lambda now: console.print(f"{now}: {counts(sender)}"))
    seconds = time.monotonic() - begun_s
    console.print(f"Sent {counts(sender)} in {seconds:.1f} s ({sender.sent.total() / seconds:,.0f} records/s).")
    console.print(f"Cancelled lines without an order to judge: {dict(source.cancellations.unmatched_by)}.")
    return 0


def send_all(sender: Sender, happenings: Iterator[Happening], pace: Pace, tell: Callable[[str], None]) -> None:
    """Send each happening at its time, telling every few seconds which day it is by now."""
    told_s = time.monotonic()
    for happening in happenings:
        pace.wait(happening.ts_ms)
        sender.send(happening)
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            tell(time.strftime("%Y-%m-%d", time.gmtime(happening.ts_ms / 1000)))
    sender.flush()


def counts(sender: Sender) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(sender.sent.items()))
