"""Child processes for servers: start, readiness, suspend, stop; they never outlive the parent process."""

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from contract.errors import Unavailable

POLL_S = 0.01
OWNER_POLL_S = 0.5

# A separate program between fork and exec, because Python code in the forked child could meet locks held by threads of
# the parent. The parent may have ended before prctl, hence the check of getppid.
_EXEC_BOUND_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def end_with(pid: int) -> None:
    """End this process once the process `pid` has: of a pool whose owner was killed, Linux kills no process."""

    def watch() -> None:
        while is_running(pid):
            time.sleep(OWNER_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="owner-watch", daemon=True).start()


def is_running(pid: int) -> bool:
    """Whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class ChildProcess:
    """A child process with its output in a file; Linux kills it when the thread that started it ends.

    Start it from a thread that lives as long as the process is needed, such as the main thread. It has its own session,
    so Ctrl-C reaches only the parent, which then stops its child processes in its own order.
    """

    def __init__(self, *, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.output = output
        self.environment = None if environment is None else {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None if it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists, also when it is suspended."""
        return self.pid is not None

    def describe_end(self) -> str:
        """A verb for messages: "ended with status 5", "ended with SIGSEGV", "is running" or "was not started"."""
        if self._process is None:
            return "was not started"
        if (status := self._process.poll()) is None:
            return "is running"
        return f"ended with {signal.Signals(-status).name if status < 0 else f'status {status}'}"

    def start(self) -> None:
        """Start the process unless it is running; its output is appended to the file."""
        if self.is_running:
            return
        wrapper = [sys.executable, "-I", "-S", "-c", _EXEC_BOUND_TO_PARENT, str(os.getpid())]
        # An interrupt inside `Popen` would leave a process that no object refers to.
        with self.output.open("ab") as output, postpone_interrupts():
            self._process = subprocess.Popen(
                wrapper + self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def stop(self, *, timeout_s: float = 20) -> int | None:
        """Terminate the process, and kill it after `timeout_s`; returns its exit status, None if it never ran."""
        if self._process is None:
            return None
        self.resume()  # a suspended process does not handle SIGTERM
        self._send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

    def kill(self) -> None:
        """Kill the process."""
        self._send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Suspend the process: its connections stay open, but it does not answer."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process after `pause`."""
        self._send_signal(signal.SIGCONT)

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait for `is_ready`; raises `Unavailable` with the end of the output on a timeout or if the process ends."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise Unavailable(
                    f"`{self.command[0]}` should start. Found that it {self.describe_end()}:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(f"`{self.command[0]}` should be ready in {timeout_s:g} s. Found:\n{self.tail()}")
            time.sleep(POLL_S)

    def tail(self, characters: int = 2_000) -> str:
        """The end of the output."""
        return self.output.read_text(errors="replace")[-characters:] if self.output.exists() else ""

    def _send_signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


@contextmanager
def postpone_interrupts() -> Iterator[None]:
    """Run the handlers of SIGINT and SIGTERM after the block; Python runs them in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[Callable[[], object]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, lambda *arguments, handler=handler: arrived.append(partial(handler, *arguments)))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
    for call in arrived:
        call()


def find_free_ports(count: int) -> list[int]:
    """Distinct loopback ports that are not in use.

    They are below the kernel's ephemeral range. An ephemeral port could be taken by an outgoing connection while its
    server is down, even by a client that then connects to itself.
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
    """Whether a server listens on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
