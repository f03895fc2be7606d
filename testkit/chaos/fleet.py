"""The processes of a chaos run: workers of both lanes and joiners, restarted when they end, as an orchestrator does."""

import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from devservers.process import find_free_ports
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.killed_process import KilledProcess

RESTART_S: Final = 1.0  # after a process ended by itself
PROBE_TIMEOUT_S: Final = 2.0
STACKS_S: Final = 1.0
TAIL_CHARACTERS: Final = 3_000
FROZEN: Final = "T"  # the state of a stopped process in /proc
JOINER: Final = "joiner"
PROGRESS_METRICS: Final = ("shopstream_lag_records", "shopstream_stream_time_seconds")


@dataclass(frozen=True, slots=True)
class OwnExit:
    """A process ended by itself: where, with which status, and the end of its output."""

    name: str
    status: int | None
    tail: str


class FleetProcess:
    """One process under an instance's name, which is restarted at `start_at_s` where it does not run."""

    def __init__(self, *, name: str, role: str, process: KilledProcess, port: int) -> None:
        self.name, self.role, self.process, self.port = name, role, process, port
        self.is_borrowed = False  # by a fault
        self.is_wanted = True
        self.start_at_s = 0.0
        self.was_stopped = True  # on purpose
        self.terminated_at_s: float | None = None

    @property
    def is_running(self) -> bool:
        return self.process.child.is_running

    @property
    def is_frozen(self) -> bool:
        """Whether the process is suspended."""
        pid = self.process.child.pid
        if pid is None:
            return False
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == FROZEN

    def start(self) -> None:
        self.was_stopped, self.terminated_at_s = False, None
        self.process.start()

    def kill(self, restart_after_s: float) -> str:
        """SIGKILL; returns the step that it died in."""
        self.was_stopped, self.start_at_s = True, time.monotonic() + restart_after_s
        return self.process.kill()

    def terminate(self, restart_after_s: float) -> None:
        """SIGTERM, without waiting for the end."""
        self.was_stopped, self.start_at_s = True, time.monotonic() + restart_after_s
        if pid := self.process.child.pid:
            self.terminated_at_s = time.monotonic()
            os.kill(pid, signal.SIGTERM)

    def freeze(self) -> str:
        """SIGSTOP; returns the step that it is in."""
        self.process.child.pause()
        return self.process.step or "start"

    def thaw(self) -> None:
        self.process.child.resume()

    def probe(self, path: str) -> str:
        """The answer of its health server, or why there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=PROBE_TIMEOUT_S) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return f"no answer: {error}"

    def read_stacks(self) -> str:
        """The stacks of all its threads, which it writes to its log on SIGUSR2."""
        pid = self.process.child.pid
        if pid is None or self.is_frozen:
            return "frozen" if pid else "not running"
        size = self.process.child.output.stat().st_size
        os.kill(pid, signal.SIGUSR2)
        time.sleep(STACKS_S)
        return self.process.child.output.read_text(errors="replace").encode()[size:].decode(errors="replace")


class Fleet:
    """All processes of a run; `tick` restarts those that should run."""

    def __init__(
        self, *, environment: RunEnvironment, variables: Mapping[str, str], workers_per_lane: int, joiners: int
    ) -> None:
        self._environment, self._variables = environment, variables
        self.own_exits: list[OwnExit] = []
        self.worst_shutdown_s = 0.0
        roles = [*(lane for lane in ("orders", "browsing") for _ in range(workers_per_lane)), *[JOINER] * joiners]
        self.processes: list[FleetProcess] = []
        for role in roles:
            self.add(role)

    def add(self, role: str) -> FleetProcess:
        """A further process of this role, which is started by the next tick."""
        number = sum(process.role == role for process in self.processes)
        name = f"{role}-{number}"
        (port,) = find_free_ports(1)
        command = self._environment.worker_command(role)
        if role == JOINER:
            command = [sys.executable, "-m", "worker", "feedback"]
        variables = {
            **self._environment.env_variables(),
            **self._variables,
            "SHOPSTREAM_WORKER__INSTANCE": str(number),
            "SHOPSTREAM_WORKER__HTTP_PORT": str(port),
        }
        process = KilledProcess(command=command, environment=variables, folder=self._environment.folder, lane=name)
        self.processes.append(FleetProcess(name=name, role=role, process=process, port=port))
        return self.processes[-1]

    def remove(self, process: FleetProcess) -> None:
        """Forget a process that has ended."""
        process.process.child.kill()
        process.process.close()
        self.processes.remove(process)

    def tick(self) -> None:
        """Start what should run and does not; a process that ended by itself waits a second."""
        now_s = time.monotonic()
        for process in self.processes:
            if process.is_running:
                continue
            self._record_end(process, now_s)
            if process.is_wanted and now_s >= process.start_at_s:
                process.start()

    def _record_end(self, process: FleetProcess, now_s: float) -> None:
        """Record an end that the run did not request, and how long a requested one took."""
        child = process.process.child
        if process.terminated_at_s is not None:
            self.worst_shutdown_s = max(self.worst_shutdown_s, now_s - process.terminated_at_s)
            process.terminated_at_s = None
            if child.stop() not in (0, -signal.SIGTERM):  # by the signal itself: it had only just begun
                self.own_exits.append(
                    OwnExit(f"{process.name} after SIGTERM", child.stop(), child.tail(TAIL_CHARACTERS))
                )
        elif not process.was_stopped:
            self.own_exits.append(OwnExit(process.name, child.stop(), child.tail(TAIL_CHARACTERS)))
            process.was_stopped, process.start_at_s = True, now_s + RESTART_S

    def find_unready(self) -> Iterator[str]:
        """What each process that is not ready says."""
        for process in self.processes:
            if (answer := process.probe("readyz").strip()) != "ok":
                yield f"{process.name}: {answer}"

    def read_progress(self) -> Iterator[str]:
        """What tells how far each process has read: a joiner that reads a log again commits nothing for a while."""
        for process in self.processes:
            yield from (line for line in process.probe("metrics").splitlines() if line.startswith(PROGRESS_METRICS))

    def close(self) -> None:
        for process in self.processes:
            process.process.child.kill()
            process.process.close()
