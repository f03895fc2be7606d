"""Draining: processes of one group work off what lies on its topics; how fast, on whose CPU, in how much memory."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from devservers.process import ChildProcess

LOOK_S: Final = 0.25
WARM: Final = 0.15  # of the events: until then caches are cold and code is being compiled
SPAN_S: Final = 1.0  # over which one figure of speed is taken
WITHIN_S: Final = 600.0
STOP_S: Final = 60.0


class Look(NamedTuple):
    """A moment: events answered so far, and the CPU seconds of each process."""

    at_s: float
    events: int
    cpu_s: Mapping[str, float]


@dataclass(slots=True)
class Drained:
    """What a drain has shown, from the look at which it was warm to its last one."""

    looks: list[Look] = field(default_factory=list)
    rss_mb: float = 0.0  # of the largest process, at its largest look

    @property
    def events(self) -> int:
        return self.looks[-1].events

    @property
    def speeds(self) -> list[float]:
        """Events a second, span by span."""
        found, begin = list[float](), self.warm[0]
        for look in self.warm[1:]:
            if look.at_s - begin.at_s >= SPAN_S and look.events > begin.events:
                found.append((look.events - begin.events) / (look.at_s - begin.at_s))
                begin = look
        first, last = self.warm[0], self.warm[-1]
        return found or [(last.events - first.events) / max(last.at_s - first.at_s, 1e-9)]

    @property
    def warm(self) -> list[Look]:
        """The looks from when it was warm; the first of a drain that was too short for it."""
        found = [look for look in self.looks if look.events >= WARM * self.events]
        return found if len(found) > 1 else [self.looks[0], self.looks[-1]]

    @property
    def seconds(self) -> float:
        return self.warm[-1].at_s - self.warm[0].at_s

    def cpu_us(self, name: str) -> float:
        """Microseconds of a process for each event."""
        first, last = self.warm[0], self.warm[-1]
        return 1e6 * (last.cpu_s[name] - first.cpu_s[name]) / max(last.events - first.events, 1)


class Drain:
    """Watches the processes of a group until it has committed the ends of its topics, or enough of them."""

    def __init__(self, *, bootstrap: str, group: str, beside: Mapping[str, ChildProcess]) -> None:
        """`beside`: the servers, whose CPU is told too."""
        self._consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
        self._beside = beside

    def run(
        self,
        children: Sequence[ChildProcess],
        ends: Mapping[tuple[str, int], int],
        *,
        enough: float = math.inf,
        while_it: Callable[[], object] = lambda: None,
    ) -> Drained:
        """Start them, wait until all is done, end them. `while_it` is called at each look, for what else is to be seen.

        `enough`: seconds after which they need not go on. Raises RuntimeError where one ends by itself or all stall.
        """
        drained, total = Drained(), sum(ends.values())
        for child in children:
            child.start()
        began = time.monotonic()
        while (done := self._committed(ends)) < total and time.monotonic() - began < enough:
            for child in children:
                if not child.is_running:
                    raise RuntimeError(f"`{' '.join(child.command[:4])}` should go on. Found:\n{child.tail()}")
            if time.monotonic() - began > WITHIN_S:
                raise RuntimeError(f"{total} events should be done in {WITHIN_S:g} s. Found {done}.")
            if done:
                self._look(drained, children, done)
                while_it()
            time.sleep(LOOK_S)
        self._look(drained, children, done)
        for child in children:
            if child.stop(timeout_s=STOP_S):
                raise RuntimeError(f"It should end with 0 when asked to. Found:\n{child.tail()}")
        self._consumer.close()
        return drained

    def _look(self, drained: Drained, children: Sequence[ChildProcess], events: int) -> None:
        used = {"self": sum(map(cpu_s, children)), **{name: cpu_s(of) for name, of in self._beside.items()}}
        drained.looks.append(Look(time.monotonic(), events, used))
        sizes = [psutil.Process(child.pid).memory_info().rss / 1e6 for child in children]
        drained.rss_mb = max(drained.rss_mb, *sizes)

    def _committed(self, ends: Mapping[tuple[str, int], int]) -> int:
        asked = [TopicPartition(*place) for place in ends]
        try:
            found = self._consumer.committed(asked, 10)
        except KafkaException:  # its coordinator is still being chosen
            return 0
        return sum(max(tp.offset, 0) for tp in found)


def cpu_s(child: ChildProcess) -> float:
    """User and system time of a process so far."""
    times = psutil.Process(child.pid).cpu_times()
    return times.user + times.system


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return round(min(values), 1), round(statistics.median(values), 1), round(max(values), 1)
