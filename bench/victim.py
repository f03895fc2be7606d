"""A worker that is killed at seeded moments and started again, and the byte that tells in which step it died."""

import math
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench.flow import Flow
from bench.stage import BATCH_MAX
from devservers.process import ChildProcess
from worker.ops.steps import STEPS

POLL_S: Final = 0.0002
START_WITHIN_S: Final = 60.0
AIM_S: Final = 4.0  # how long a chosen step is waited for before another one has to do
FEED_AFTER_S: Final = 0.02
IN_HAND: Final = ("read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache")
# Each lane's steps that last long enough to be met, the short ones more often, since they are missed more often.
# `recover` is met right after a start, None is any moment.
AIMS: Final[Mapping[str, Sequence[str | None]]] = {
    "orders": (*("read", "score", "publish", "commit", "merge") * 2, *("claim",) * 5, "recover", None),
    "browsing": (
        *("read", "score", "send", "refresh", "publish", "commit", "merge", "cache") * 2,
        "merge",
        "cache",
        "recover",
        None,
    ),
}
OCCURRENCE_MAX: Final = 3


class Victim:
    """One lane's worker: at most one process at a time, each life with a step file of its own."""

    def __init__(self, *, command: Sequence[str], environment: Mapping[str, str], folder: Path, lane: str) -> None:
        self.lane, self._folder, self._lives = lane, folder, 0
        self._command, self._environment = command, environment
        self._steps = -1
        self.child = self._child()

    def start(self) -> None:
        """Begin a new life; of the thread that calls this, since the process ends with it."""
        self.close()
        self._lives += 1
        self.child = self._child()
        path = self._folder / f"{self.lane}-{self._lives}.step"
        path.touch()
        self._steps = os.open(path, os.O_RDONLY)
        self.child.start()

    @property
    def step(self) -> str | None:
        """The step in which the worker is, or was when it died; None before its first one."""
        byte = os.pread(self._steps, 1, 0)
        return STEPS[byte[0]] if byte else None

    def kill(self) -> str:
        """SIGKILL, and the step that it ended."""
        self.child.kill()
        return self.step or "start"

    def stop(self) -> int | None:
        """SIGTERM, and the exit status."""
        return self.child.stop()

    def close(self) -> None:
        if self._steps >= 0:
            os.close(self._steps)
            self._steps = -1

    def _child(self) -> ChildProcess:
        steps = {"SHOPSTREAM_STEP_FILE": str(self._folder / f"{self.lane}-{self._lives}.step")}
        output = self._folder / f"{self.lane}.log"
        return ChildProcess(command=self._command, output=output, environment={**self._environment, **steps})


class Killer:
    """Ends a victim again and again, each time in a step and at an occurrence of it that the seed has chosen.

    A worker that has caught up is fed, so that there is a batch to die with.
    """

    def __init__(self, *, victim: Victim, flow: Flow, kills: int, seed: int) -> None:
        self.victim, self.flow, self.kills = victim, flow, kills
        self.rng = random.Random(f"{victim.lane} {seed}")
        self.died_in: Counter[str] = Counter()

    def run(self, told: Callable[[str], None]) -> Counter[str]:
        """All lives but the last; returns how many ended in each step."""
        share = max(BATCH_MAX, self.flow.total // max(1, self.kills))
        for number in range(self.kills):
            self.flow.send(share)
            self.victim.start()
            self._await_moment(self.rng.choice(AIMS[self.victim.lane]), self.rng.randint(1, OCCURRENCE_MAX))
            step = self.victim.kill()
            self.died_in[step] += 1
            told(f"{self.victim.lane}: kill {number + 1} of {self.kills} in {step}")
        return self.died_in

    def _await_moment(self, aim: str | None, occurrence: int) -> None:
        """Return when the victim is in the chosen step for that time, or in any with a batch in hand if it never is."""
        if aim is None:
            self._wait(lambda: False, within_s=self.rng.uniform(0, AIM_S))
            return
        self._wait(lambda: self.victim.step is not None, within_s=START_WITHIN_S)
        entries = Entries(aim, occurrence)
        self._wait(lambda: entries.reached(self.victim.step), within_s=AIM_S)
        if not entries.done:
            self._wait(lambda: self.victim.step in IN_HAND, within_s=AIM_S)

    def _wait(self, reached: Callable[[], bool], *, within_s: float) -> None:
        deadline, busy = time.monotonic() + within_s, math.inf
        while not reached() and (now := time.monotonic()) < deadline:
            if self.victim.step in IN_HAND:
                busy = now
            elif now - busy > FEED_AFTER_S:
                self.flow.send(self.rng.randint(5, 15))
                busy = now
            if not self.victim.child.is_running:
                raise RuntimeError(f"A worker should run until it is killed. Found:\n{self.victim.child.tail()}")
            time.sleep(POLL_S)


class Entries:
    """Counts how often a step was entered, as far as somebody who looks now and then can tell."""

    def __init__(self, aim: str, occurrence: int) -> None:
        self.aim, self.left = aim, occurrence
        self._inside = False

    @property
    def done(self) -> bool:
        return self.left <= 0

    def reached(self, step: str | None) -> bool:
        """Whether `step` is the chosen one, entered for the chosen time."""
        entered = step == self.aim and not self._inside
        self._inside = step == self.aim
        self.left -= entered
        return self.done
