"""Progress of a fit: a bar with the losses by task, a line for each epoch, and a log of JSON lines."""

import json
import math
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from contract.errors import BadConfig
from training.report.console import CONSOLE, print_lines
from training.trainer.fit import Epoch, Losses

UPDATE_INTERVAL_S: Final = 0.2


class ProgressReporter:
    """Reports steps and epochs, and appends one JSON object for each epoch to the log.

    Raises `BadConfig` before training for a log that cannot be written.
    """

    def __init__(self, *, log: Path | None = None) -> None:
        columns = (TextColumn("epoch {task.fields[number]}"), BarColumn(), TextColumn("{task.fields[losses]}"))
        self._bar = Progress(*columns, TimeRemainingColumn(), console=CONSOLE, transient=True)
        self._task = self._bar.add_task("", total=None, number=1, losses="")
        self._epoch = 1
        self._updated_s = 0.0
        self._started_s = time.monotonic()
        self._log = log
        if log:
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.open("a").close()
            except OSError as error:
                raise BadConfig([f"`--log` should be a file that can be written. Found: {error}"]) from error

    def __enter__(self) -> Self:
        if CONSOLE.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_step(self, done: int, total: int, losses: Losses) -> None:
        """Update the bar after a step of the current epoch, at most every `UPDATE_INTERVAL_S`."""
        if CONSOLE.is_terminal and (done == total or time.monotonic() > self._updated_s + UPDATE_INTERVAL_S):
            self._updated_s = time.monotonic()
            self._bar.update(
                self._task, completed=done, total=total, number=self._epoch, losses=format_values(losses, 3)
            )

    def on_epoch(self, epoch: Epoch) -> None:
        """Print and log a scored epoch."""
        self._epoch = epoch.number + 1
        weights = f"  weights  {format_values(epoch.weights, 3)}" if epoch.weights else ""
        print_lines(f"epoch {epoch.number}  score {epoch.score:.4f}  losses  {format_values(epoch.losses, 4)}{weights}")
        if self._log:
            line = {
                "epoch": epoch.number,
                "score": None if math.isnan(epoch.score) else epoch.score,
                "losses": epoch.losses,
                "weights": dict(epoch.weights),
                "seconds": round(time.monotonic() - self._started_s, 3),
            }
            with self._log.open("a") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")


def format_values(values: Losses, digits: int) -> str:
    return "  ".join(f"{task} {value:.{digits}f}" for task, value in values.items())
