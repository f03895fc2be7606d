"""Terminal output of the demo: the current step, and one line with the duration of each finished step."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape

ShowStatus: TypeAlias = Callable[[str], None]


class StepReporter:
    """Shows a spinner for the running step (on a terminal) and prints one line for each finished step."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo started."""
        return time.monotonic() - self._started_s

    @contextmanager
    def step(self, title: str) -> Iterator[ShowStatus]:
        """Run one step; yields a function that shows its status. The last status is printed with the finished step."""
        started_s = time.monotonic()
        last_text = ""
        with self.console.status(escape(title)) as status:

            def show_status(text: str) -> None:
                nonlocal last_text
                last_text = text
                status.update(f"{escape(title)}: {escape(text)}")

            yield show_status
        line = f"{title}: {last_text}" if last_text else title
        self.console.print(f"[green]✓[/green] [dim]{time.monotonic() - started_s:5.1f} s[/dim]  {escape(line)}")
