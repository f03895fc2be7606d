"""A server as a child process: how it starts, becomes ready, pauses, and never outlives the process that started it."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from contract.errors import Unavailable

POLL_S = 0.01

# Runs between fork and exec, as a program of its own: code in the forked child would run beside locks that
# threads of the parent hold. The parent may have ended before the kernel was told, hence the second look.
_EXEC_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class ChildProcess:
    """A child process with its output in a file; Linux kills it when the thread that started it ends.

    So start it from a thread that lives as long as the server is needed, as the main thread does. It has a session of
    its own: Ctrl-C reaches the parent alone, which then stops its servers in the order it wants.
    """

    def __init__(self, *, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.output = output
        self.environment = None if environment is None else {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process is there, paused or not."""
        return self.pid is not None

    def start(self) -> None:
        """Start the process, if it does not run; its output is appended."""
        if self.is_running:
            return
        wrapper = [sys.executable, "-I", "-S", "-c", _EXEC_BOUND_TO_PARENT, str(os.getpid())]
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                wrapper + self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def stop(self, *, timeout_s: float = 20) -> int | None:
        """Ask the process to end, kill it when it has not by then; its exit status, None if it never ran."""
        if self._process is None:
            return None
        self.resume()  # A paused process would not hear the request.
        self._send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        self._send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Freeze the process: its connections stay open and nobody answers."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._send_signal(signal.SIGCONT)

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return once `ready()`; raises `Unavailable` with the end of the output if the process ends or is late."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise Unavailable(f"`{self.command[0]}` should start. Found that it ended:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"`{self.command[0]}` should be ready in {timeout_s:g} s. Found:\n{self.tail()}")
            time.sleep(POLL_S)

    def tail(self, characters: int = 2_000) -> str:
        """The end of its output."""
        return self.output.read_text(errors="replace")[-characters:] if self.output.exists() else ""

    def _send_signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def find_free_ports(count: int) -> list[int]:
    """Distinct loopback ports that nobody listens on.

    They lie below the range from which the kernel takes the ports of outgoing connections: from that range, a port
    could be taken while its server is down, even by a client that connects to itself.
    """
    candidates = random.SystemRandom().sample(range(15_000, 32_000), 1_000)
    return list(itertools.islice(filter(_can_listen, candidates), count))


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def is_port_open(port: int) -> bool:
    """Whether somebody listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
