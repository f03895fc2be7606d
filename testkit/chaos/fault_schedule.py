"""Which faults a round has, and when each begins: seeded, overlapping, one at a time for each server."""

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass

from testkit.chaos.catalogue import CHAOS_FAULTS, SHARED, ChaosFault
from testkit.chaos.scene import Course, Scene


class FaultDeck:
    """Deals the kinds of faults in shuffled order, each once before any comes again."""

    def __init__(self, names: Iterable[str], rng: random.Random) -> None:
        self._names, self._rng = list(names), rng
        self._left: list[str] = []

    def deal(self, count: int) -> list[str]:
        """The next faults."""
        dealt = list[str]()
        while len(dealt) < count:
            if not self._left:
                self._left = self._rng.sample(self._names, len(self._names))
            dealt.append(self._left.pop())
        return dealt


@dataclass(slots=True, eq=False)
class PlannedFault:
    """A fault of this round: when it goes on, and its course once it has begun."""

    name: str
    fault: ChaosFault
    due_s: float
    course: Course | None = None


class RoundSchedule:
    """The faults of one round; `tick` begins and continues what is due, `heal` ends everything."""

    def __init__(self, scene: Scene, names: Iterable[str], *, seconds: float) -> None:
        self._scene = scene
        self._begin_s = time.monotonic()
        self._planned = [
            PlannedFault(
                name, CHAOS_FAULTS[name], 0 if CHAOS_FAULTS[name].begins_drained else scene.rng.uniform(0, seconds)
            )
            for name in names
        ]

    def tick(self) -> None:
        """Begin and continue the faults that are due; a server has one fault at a time, the next one waits for it."""
        now_s = time.monotonic() - self._begin_s
        for planned in sorted(self._planned, key=lambda planned: planned.due_s):
            if planned.due_s > now_s or (planned.course is None and self._is_busy(planned.fault.server)):
                continue
            if planned.course is None:
                planned.course = planned.fault.course(self._scene)
            try:
                planned.due_s = now_s + next(planned.course)
            except StopIteration:
                self._planned.remove(planned)

    def begin_drained(self) -> None:
        """Begin the faults that need an environment where everything is folded and answered.

        One whose server is busy with another is left out: once events flow it would delete records that are not read.
        """
        self.tick()
        self._planned = [
            planned for planned in self._planned if planned.course is not None or not planned.fault.begins_drained
        ]
        self._begin_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether every fault has ended."""
        return not self._planned

    def heal(self) -> None:
        """End every fault that has begun; the others do not begin any more."""
        for planned in self._planned:
            if planned.course is not None:
                planned.course.close()  # type: ignore[attr-defined]  # a generator, whose `finally` heals
        self._planned.clear()

    def _is_busy(self, server: str) -> bool:
        return server != SHARED and any(
            planned.fault.server == server for planned in self._planned if planned.course is not None
        )
