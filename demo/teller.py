"""How the demo tells its story in the terminal: what it does now, and how long each step took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.markup import escape

Say: TypeAlias = Callable[[str], None]


class Teller:
    """Shows the step in hand with a spinner where there is a terminal, and leaves one line for each that is done."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._begun_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self._begun_s

    @contextmanager
    def step(self, what: str) -> Iterator[Say]:
        """One step; what is said last while it lasts stays beside it."""
        begun_s, said = time.monotonic(), ""
        with self.console.status(escape(what)) as status:

            def say(text: str) -> None:
                nonlocal said
                said = text
                status.update(f"{escape(what)}: {escape(text)}")

            yield say
        took = f"[dim]{time.monotonic() - begun_s:5.1f} s[/dim]"
        self.console.print(f"[green]✓[/green] {took}  {escape(what)}" + (f": {escape(said)}" if said else ""))
