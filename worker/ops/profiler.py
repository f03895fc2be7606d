"""Where the time of a batch goes, part by part: `python -m worker score --profile` prints it when it ends.

A part stands in another one where its name begins with the other's: `score lists` is in `score`. CPU is that of the
thread that works, so what a part only waited for is the difference to its wall time.
"""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Final


class Timer:
    """One part of a batch: how often it was entered, and its nanoseconds of wall time and of CPU."""

    def __init__(self) -> None:
        self.calls = self.wall_ns = self.cpu_ns = 0

    def __enter__(self) -> None:
        self.calls += 1
        self.wall_ns -= time.perf_counter_ns()
        self.cpu_ns -= time.thread_time_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu_ns += time.thread_time_ns()
        self.wall_ns += time.perf_counter_ns()


class Profiler:
    """The parts that were measured, in the order in which they first came, and the records that went through."""

    def __init__(self) -> None:
        self.records = self.batches = 0
        self._timers: dict[str, Timer] = {}

    def __call__(self, name: str) -> Timer:
        """To be entered while the part lasts; a part does not stand in itself."""
        return self._timers.get(name) or self._timers.setdefault(name, Timer())

    def count_batch(self, records: int) -> None:
        """A batch is done."""
        self.batches += records > 0
        self.records += records

    def format_table(self) -> Iterator[str]:
        """Microseconds a record, and milliseconds a batch, part by part, as lines."""
        records, batches = max(self.records, 1), max(self.batches, 1)
        yield f"{self.records:,} records in {self.batches:,} batches: microseconds a record, milliseconds a batch"
        yield f"{'part':16} {'wall us':>8} {'CPU us':>8} {'waiting':>8} {'batch ms':>9} {'CPU ms':>8} {'times':>9}"
        for name in sorted(self._timers, key=lambda name: list(self._timers).index(name.partition(" ")[0])):
            timer = self._timers[name]
            wall, cpu = timer.wall_ns / 1_000 / records, timer.cpu_ns / 1_000 / records
            label = name if " " not in name else f"  {name.partition(' ')[2]}"
            batch_columns = f"{timer.wall_ns / 1e6 / batches:9.2f} {timer.cpu_ns / 1e6 / batches:8.2f}"
            yield f"{label:16} {wall:8.2f} {cpu:8.2f} {max(wall - cpu, 0):8.2f} {batch_columns} {timer.calls:9,}"


PROFILER: Final = Profiler()  # of this process
