"""Child processes of the demo: started, watched, and stopped before the servers."""

import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from contract.errors import ShopstreamError
from devservers.process import ChildProcess

POLL_S: Final = 0.05
TAIL_CHARS: Final = 3_000
STOP_TIMEOUT_S: Final = 10.0


class DemoError(ShopstreamError):
    """A part of the demo failed or timed out; the message contains the end of its log."""


class CommandResult(NamedTuple):
    """Exit status of a command, and the last line that it printed."""

    status: int
    last_line: str


class ProcessManager:
    """Runs Python modules of this checkout as child processes in this environment; each logs to a file in `folder`."""

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, ChildProcess] = {}

    def start(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """Start `python -m ARGUMENTS`, which should run until `stop`."""
        process = self._make_process(name, arguments, environment or {})
        self._processes[name] = process
        process.start()

    def run(self, name: str, *arguments: str, timeout_s: float, statuses: Collection[int] = (0,)) -> CommandResult:
        """Run `python -m ARGUMENTS` to its end; raises `DemoError` on a timeout or a status not in `statuses`."""
        process = self._make_process(name, arguments, {})
        try:
            process.start()
            deadline = time.monotonic() + timeout_s
            while process.is_running:
                self.raise_if_ended()
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"`{name}` should finish within {timeout_s:g} s. Found:\n{process.tail(TAIL_CHARS)}"
                    )
                time.sleep(POLL_S)
            status = process.stop() or 0
        finally:
            process.kill()
        if status not in statuses:
            raise DemoError(
                f"`{name}` should succeed. Found status {status} and in its log:\n{process.tail(TAIL_CHARS)}"
            )
        return CommandResult(status, (process.output.read_text(errors="replace").splitlines() or [""])[-1])

    def raise_if_ended(self) -> None:
        """Raise `DemoError`, with the end of its log, if a started process has ended."""
        for name, process in self._processes.items():
            if not process.is_running:
                raise DemoError(
                    f"`{name}` should keep running. Found that it {process.describe_end()}:\n{process.tail(TAIL_CHARS)}"
                )

    def wait_until(self, condition: Callable[[], bool], expectation: str, timeout_s: float) -> None:
        """Wait for `condition`; raises `DemoError` with `expectation` on a timeout, or when a process ends."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.raise_if_ended()
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}: …{process.tail(500)}" for name, process in self._processes.items())
                raise DemoError(
                    f"{expectation} within {timeout_s:g} s. Found that it timed out; the logs end with:\n{logs}"
                )
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Terminate all processes in parallel; kill those that do not end in time."""
        with ThreadPoolExecutor(max_workers=max(1, len(self._processes))) as pool:
            list(pool.map(lambda process: process.stop(timeout_s=STOP_TIMEOUT_S), self._processes.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _make_process(self, name: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> ChildProcess:
        return ChildProcess(
            command=[sys.executable, "-m", *arguments],
            output=self._folder / f"{name.replace(' ', '-')}.log",
            environment=environment,
        )
