"""The steps of a batch: which one the worker is in, and how long each takes.

Where `SHOPSTREAM_STEP_FILE` names a file, the present step is one byte in it, in shared memory, so that it is readable
after the process has ended; kill tests and operators read it. It costs one memory write per step.

`python -m worker score --profile` prints at the end how long each part of a batch took. A part is inside another one
whose name its own begins with: `score lists` is inside `score`. CPU time is that of the calling thread, so the
difference to the wall time is waiting.
"""

import mmap
import os
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import TracebackType
from typing import Final

from worker.ops import metrics


class Step(StrEnum):
    """The steps of a batch; their order is the code in the step file."""

    IDLE = "idle"
    READ = "read"
    SCORE = "score"
    CLAIM = "claim"
    SEND = "send"
    REFRESH = "refresh"
    PUBLISH = "publish"
    COMMIT = "commit"
    MERGE = "merge"
    CACHE = "cache"
    RECOVER = "recover"


STEPS: Final = tuple(Step)
STEP_CODES: Final[dict[str, int]] = {step: code for code, step in enumerate(STEPS)}


class Timer:
    """One part of a batch: how often it ran, its wall and CPU nanoseconds; `observe_s` gets the seconds of each."""

    def __init__(self, observe_s: Callable[[float], None] | None = None) -> None:
        self.calls = self.wall_ns = self.cpu_ns = 0
        self._observe_s = observe_s
        self._starts: list[tuple[int, int]] = []  # a recovery may wait for a server and begin again inside itself

    def __enter__(self) -> None:
        self.calls += 1
        self._starts.append((time.perf_counter_ns(), time.thread_time_ns()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall_start_ns, cpu_start_ns = self._starts.pop()
        wall_ns = time.perf_counter_ns() - wall_start_ns
        self.cpu_ns += time.thread_time_ns() - cpu_start_ns
        self.wall_ns += wall_ns
        if self._observe_s is not None:
            self._observe_s(wall_ns / 1e9)


class Profiler:
    """A timer for each part, in the order of their first run, and the counts of batches and records."""

    def __init__(self) -> None:
        self.records = self.batches = 0
        self._timers: dict[str, Timer] = {}

    def __call__(self, name: str) -> Timer:
        """The timer of a part; that of a step feeds the histogram of steps too."""
        return self._timers.get(name) or self._add_timer(name)

    def count_batch(self, records: int) -> None:
        self.batches += records > 0
        self.records += records

    def format_table(self) -> Iterator[str]:
        """Microseconds per record and milliseconds per batch, one line for each part."""
        records, batches = max(self.records, 1), max(self.batches, 1)
        yield f"{self.records:,} records in {self.batches:,} batches: microseconds a record, milliseconds a batch"
        yield f"{'part':16} {'wall us':>8} {'CPU us':>8} {'waiting':>8} {'batch ms':>9} {'CPU ms':>8} {'times':>9}"
        for name in sorted(self._timers, key=lambda name: list(self._timers).index(name.partition(" ")[0])):
            timer = self._timers[name]
            wall, cpu = timer.wall_ns / 1_000 / records, timer.cpu_ns / 1_000 / records
            label = name if " " not in name else f"  {name.partition(' ')[2]}"
            batch_columns = f"{timer.wall_ns / 1e6 / batches:9.2f} {timer.cpu_ns / 1e6 / batches:8.2f}"
            yield f"{label:16} {wall:8.2f} {cpu:8.2f} {max(wall - cpu, 0):8.2f} {batch_columns} {timer.calls:9,}"

    def _add_timer(self, name: str) -> Timer:
        timer = self._timers[name] = Timer(metrics.STEP_SECONDS.labels(name).observe if name in STEP_CODES else None)
        return timer


PROFILER: Final = Profiler()  # of this process


class StepMarker:
    """Marks the step that begins."""

    def __init__(self) -> None:
        self._cell: mmap.mmap | bytearray = bytearray(1)
        if path := os.environ.get("SHOPSTREAM_STEP_FILE"):
            with open(path, "w+b") as file:
                file.write(b"\0")
                file.flush()
                self._cell = mmap.mmap(file.fileno(), 1)

    def __call__(self, step: str) -> None:
        self._cell[0] = STEP_CODES[step]

    def time(self, step: str) -> Timer:
        """Mark the step and return its timer, to be entered at once."""
        self(step)
        return PROFILER(step)

    @property
    def current(self) -> str:
        return STEPS[self._cell[0]]
