"""A score worker process that is killed at seeded moments and restarted; a step file shows the step it died in."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from devservers.process import ChildProcess
from testkit.environment.run_environment import BATCH_MAX
from testkit.traffic.producer import TrafficProducer
from worker.ops.steps import STEPS, Step

POLL_S: Final = 0.0002
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0
TARGET_TIMEOUT_S: Final = 4.0  # after which any step with a batch replaces the chosen one
SEND_WHEN_IDLE_S: Final = 0.02
STEPS_WITH_BATCH: Final = ("read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache")
# Steps to kill each lane in; short steps are missed more often, so they are listed more often.
# `recover` comes right after a start, None is any moment.
TARGET_STEPS: Final[Mapping[str, Sequence[str | None]]] = {
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


class KilledProcess:
    """One lane's worker: at most one process at a time, each with its own step file."""

    def __init__(self, *, command: Sequence[str], environment: Mapping[str, str], folder: Path, lane: str) -> None:
        self.lane = lane
        self._folder = folder
        self._start_count = 0
        self._command, self._environment = command, environment
        self._step_file = -1
        self.child = self._create_child()

    def start(self) -> None:
        """Start a new process; it ends with the calling thread."""
        self.close()
        self._start_count += 1
        self.child = self._create_child()
        path = self._folder / f"{self.lane}-{self._start_count}.step"
        path.touch()
        self._step_file = os.open(path, os.O_RDONLY)
        self.child.start()

    @property
    def step(self) -> str | None:
        """The step that the worker is in, or was in when it died; None before its first one."""
        byte = os.pread(self._step_file, 1, 0)
        return STEPS[byte[0]] if byte else None

    def freeze(self) -> str | None:
        """Send SIGSTOP; returns the step that the worker then stays in."""
        self.child.pause()
        self.child.wait_until(
            lambda: psutil.Process(self.child.pid).status() == psutil.STATUS_STOPPED, timeout_s=STOP_TIMEOUT_S
        )
        return self.step

    def kill(self) -> str:
        """Send SIGKILL; returns the step that the worker died in."""
        self.child.kill()
        return self.step or "start"

    def stop(self) -> int | None:
        """Send SIGTERM; returns the exit status."""
        return self.child.stop()

    def close(self) -> None:
        if self._step_file >= 0:
            os.close(self._step_file)
            self._step_file = -1

    def _create_child(self) -> ChildProcess:
        step_variables = {"SHOPSTREAM_STEP_FILE": str(self._folder / f"{self.lane}-{self._start_count}.step")}
        output = self._folder / f"{self.lane}.log"
        return ChildProcess(command=self._command, output=output, environment={**self._environment, **step_variables})


class Killer:
    """Kills a process repeatedly, each time in a seeded step and at a seeded occurrence of it.

    Sends events to an idle worker, so that there is a batch to be killed with.
    """

    def __init__(self, *, process: KilledProcess, producer: TrafficProducer, kills: int, seed: int) -> None:
        self.process = process
        self.producer = producer
        self.kills = kills
        self.rng = random.Random(f"{process.lane} {seed}")
        self.kills_by_step: Counter[str] = Counter()
        self._has_worked = False  # since its start, at which it counts as idle too

    def run(self, report: Callable[[str], None]) -> Counter[str]:
        """Every run of the process that ends by a kill; returns the kills by step."""
        events_per_kill = max(BATCH_MAX, self.producer.total // max(1, self.kills))
        for number in range(self.kills):
            self.producer.send(events_per_kill)
            self.process.start()
            self._has_worked = False
            self._wait_for_moment(self.rng.choice(TARGET_STEPS[self.process.lane]), self.rng.randint(1, OCCURRENCE_MAX))
            step = self.process.kill()
            self.kills_by_step[step] += 1
            report(f"{self.process.lane}: kill {number + 1} of {self.kills} in {step}")
        return self.kills_by_step

    def _wait_for_moment(self, target: str | None, occurrence: int) -> None:
        """Return at the chosen occurrence of the step, or in any step with a batch if it does not occur in time.

        A worker that should die with a batch is then suspended with one, however late this process gets its turn.
        """
        if target is None:
            self._wait(lambda: False, within_s=self.rng.uniform(0, TARGET_TIMEOUT_S))
            return
        self._wait(lambda: self.process.step is not None, within_s=START_TIMEOUT_S)
        entries = StepEntries(target, occurrence)
        self._wait(lambda: entries.observe(self.process.step), within_s=TARGET_TIMEOUT_S)
        if target in STEPS_WITH_BATCH or not entries.done:
            self._wait(self._freeze_with_batch, within_s=START_TIMEOUT_S)

    def _freeze_with_batch(self) -> bool:
        if self.process.step not in STEPS_WITH_BATCH:
            return False
        if self.process.freeze() in STEPS_WITH_BATCH:
            return True
        self.process.child.resume()
        return False

    def _wait(self, is_reached: Callable[[], bool], *, within_s: float) -> None:
        deadline, busy_until = time.monotonic() + within_s, time.monotonic()
        while not is_reached() and (now := time.monotonic()) < deadline:
            if self.process.step not in (None, Step.IDLE):
                self._has_worked, busy_until = True, now
            elif self._has_worked and now - busy_until > SEND_WHEN_IDLE_S:
                self.producer.send(self.rng.randint(5, 15))
                busy_until = now
            if not self.process.child.is_running:
                child = self.process.child
                raise RuntimeError(
                    f"A worker should run until it is killed. Found that it {child.describe_end()}:\n{child.tail()}"
                )
            time.sleep(POLL_S)


class StepEntries:
    """Counts how often a step was entered, as seen by polling."""

    def __init__(self, target: str, occurrence: int) -> None:
        self.target, self.remaining = target, occurrence
        self._inside = False

    @property
    def done(self) -> bool:
        return self.remaining <= 0

    def observe(self, step: str | None) -> bool:
        """Whether the target step has been entered often enough."""
        entered = step == self.target and not self._inside
        self._inside = step == self.target
        self.remaining -= entered
        return self.done
