"""The crew: every process of ours that the demo starts, watched, and stopped before the servers are."""

import sys
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from contract.errors import ShopstreamError
from demo.servers.child import Child

POLL_S: Final = 0.05
TAIL_CHARS: Final = 3_000
PATIENCE_S: Final = 10.0


class Failed(ShopstreamError):
    """A part of the demo ended, or was late; the message carries the end of its log."""


class Finished(NamedTuple):
    """How a command ended: its exit status, and the last line that it printed."""

    status: int
    said: str


class Crew:
    """Commands of this checkout as child processes, with the environment of this one; each has its log in `folder`."""

    def __init__(self, *, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, Child] = {}

    def start(self, name: str, *words: str, environment: Mapping[str, str] | None = None) -> None:
        """Start `python -m WORDS`, which is to run until the crew is stopped."""
        child = self._child(name, words, environment or {})
        self._children[name] = child
        child.start()

    def finish(self, name: str, *words: str, within_s: float, statuses: Collection[int] = (0,)) -> Finished:
        """Run `python -m WORDS` to its end; raises `Failed` if that is late or none of `statuses`."""
        child = self._child(name, words, {})
        child.start()
        try:
            deadline = time.monotonic() + within_s
            while child.running:
                self.check()
                if time.monotonic() > deadline:
                    raise Failed(f"`{name}` should be done within {within_s:g} s. Found:\n{child.tail(TAIL_CHARS)}")
                time.sleep(POLL_S)
            status = child.stop() or 0
        finally:
            child.kill()
        if status not in statuses:
            raise Failed(f"`{name}` should end well. Found status {status} and, in its log:\n{child.tail(TAIL_CHARS)}")
        return Finished(status, (child.output.read_text(errors="replace").splitlines() or [""])[-1])

    def check(self) -> None:
        """Raise `Failed`, with the end of its log, for a process that has ended by itself."""
        for name, child in self._children.items():
            if not child.running:
                raise Failed(f"`{name}` should go on. Found that it ended:\n{child.tail(TAIL_CHARS)}")

    def wait_until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        """Return once `holds()`; raises `Failed` when a process ends or the time is over. `what` should hold then."""
        deadline = time.monotonic() + within_s
        while not holds():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}: …{child.tail(500)}" for name, child in self._children.items())
                raise Failed(f"{what} within {within_s:g} s. Found that it was not; the logs end with:\n{logs}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask all to end at once and wait for them; those that do not listen are killed."""
        with ThreadPoolExecutor(max_workers=max(1, len(self._children))) as pool:
            list(pool.map(lambda child: child.stop(patience_s=PATIENCE_S), self._children.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _child(self, name: str, words: tuple[str, ...], more: Mapping[str, str]) -> Child:
        return Child(
            command=[sys.executable, "-m", *words],
            output=self._folder / f"{name.replace(' ', '-')}.log",
            environment=more,
        )
