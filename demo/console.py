"""How the demo tells its story in the terminal: what it does now, and how long each step took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape

ShowStatus: TypeAlias = Callable[[str], None]


class StepReporter:
    """Shows the step in hand with a spinner where there is a terminal, and leaves one line for each that is done."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._started_s

    @contextmanager
    def step(self, title: str) -> Iterator[ShowStatus]:
        """One step; what is said last while it lasts stays beside it."""
        started_s, last_text = time.monotonic(), ""
        with self.console.status(escape(title)) as status:

            def show_status(text: str) -> None:
                nonlocal last_text
                last_text = text
                status.update(f"{escape(title)}: {escape(text)}")

            yield show_status
        elapsed = f"[dim]{time.monotonic() - started_s:5.1f} s[/dim]"
        self.console.print(
            f"[green]✓[/green] {elapsed}  {escape(title)}" + (f": {escape(last_text)}" if last_text else "")
        )
