"""Measures how the processes of a consumer group process a backlog: events per second, CPU and memory."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from devservers.process import ChildProcess

SAMPLE_S: Final = 0.25
WARMUP_SHARE: Final = 0.15  # of the events; until then caches are cold and code is compiled
SPAN_S: Final = 1.0  # over which one speed is measured
TIMEOUT_S: Final = 600.0
STOP_TIMEOUT_S: Final = 60.0


class ProgressSample(NamedTuple):
    """Events committed so far and CPU seconds of each process, at one time."""

    time_s: float
    events: int
    cpu_s: Mapping[str, float]


@dataclass(slots=True)
class DrainResult:
    """The samples of a drain; figures are of the time after the warm-up."""

    samples: list[ProgressSample] = field(default_factory=list)
    rss_mb: float = 0.0  # maximum over processes and samples

    @property
    def events(self) -> int:
        return self.samples[-1].events

    @property
    def speeds(self) -> list[float]:
        """Events per second, span by span."""
        speeds, begin = list[float](), self.warm_samples[0]
        for sample in self.warm_samples[1:]:
            if sample.time_s - begin.time_s >= SPAN_S and sample.events > begin.events:
                speeds.append((sample.events - begin.events) / (sample.time_s - begin.time_s))
                begin = sample
        first, last = self.warm_samples[0], self.warm_samples[-1]
        return speeds or [(last.events - first.events) / max(last.time_s - first.time_s, 1e-9)]

    @property
    def warm_samples(self) -> list[ProgressSample]:
        """The samples after the warm-up; the first and last one of a drain that was too short."""
        warm = [sample for sample in self.samples if sample.events >= WARMUP_SHARE * self.events]
        return warm if len(warm) > 1 else [self.samples[0], self.samples[-1]]

    @property
    def seconds(self) -> float:
        return self.warm_samples[-1].time_s - self.warm_samples[0].time_s

    def cpu_us_per_event(self, name: str) -> float:
        """CPU microseconds of a process per event."""
        first, last = self.warm_samples[0], self.warm_samples[-1]
        return 1e6 * (last.cpu_s[name] - first.cpu_s[name]) / max(last.events - first.events, 1)


class Drain:
    """Watches the processes of a group until the group has committed the ends of its topics."""

    def __init__(self, *, bootstrap: str, group: str, servers: Mapping[str, ChildProcess]) -> None:
        """`servers`: processes whose CPU is measured as well, by name."""
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
        self._servers = servers

    def run(
        self,
        children: Sequence[ChildProcess],
        ends: Mapping[tuple[str, int], int],
        *,
        stop_after_s: float = math.inf,
        on_sample: Callable[[], object] = lambda: None,
    ) -> DrainResult:
        """Start the children, wait until everything is committed or `stop_after_s` has passed, stop them.

        `on_sample` is called at each sample. Raises RuntimeError if a child ends by itself or all stall.
        """
        result, total = DrainResult(), sum(ends.values())
        for child in children:
            child.start()
        started_s = time.monotonic()
        while (done := self._count_committed(ends)) < total and time.monotonic() - started_s < stop_after_s:
            for child in children:
                if not child.is_running:
                    raise RuntimeError(
                        f"`{' '.join(child.command[:4])}` should keep running. "
                        f"Found that it {child.describe_end()}:\n{child.tail()}"
                    )
            if time.monotonic() - started_s > TIMEOUT_S:
                raise RuntimeError(f"{total} events should be committed in {TIMEOUT_S:g} s. Found {done}.")
            if done:
                self._sample(result, children, done)
                on_sample()
            time.sleep(SAMPLE_S)
        self._sample(result, children, done)
        for child in children:
            if child.stop(timeout_s=STOP_TIMEOUT_S):
                raise RuntimeError(f"A stopped process should end with 0. Found:\n{child.tail()}")
        self._consumer.close()
        return result

    def _sample(self, result: DrainResult, children: Sequence[ChildProcess], events: int) -> None:
        cpu_by_process = {
            "self": sum(map(read_cpu_s, children)),
            **{name: read_cpu_s(server) for name, server in self._servers.items()},
        }
        result.samples.append(ProgressSample(time.monotonic(), events, cpu_by_process))
        sizes = [psutil.Process(child.pid).memory_info().rss / 1e6 for child in children]
        result.rss_mb = max(result.rss_mb, *sizes)

    def _count_committed(self, ends: Mapping[tuple[str, int], int]) -> int:
        partitions = [TopicPartition(*partition) for partition in ends]
        try:
            committed = self._consumer.committed(partitions, 10)
        except KafkaException:  # its coordinator is still being elected
            return 0
        return sum(max(tp.offset, 0) for tp in committed)


def read_cpu_s(child: ChildProcess) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(child.pid).cpu_times()
    return times.user + times.system
