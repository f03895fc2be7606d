"""What a person sees of training: a line for each epoch, a table of figures, a last line of JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from contract.tasks import Task
from training.evaluation import Evaluation
from training.fit import Epoch

CONSOLE: Final = Console(stderr=True)


def show_epoch(epoch: Epoch) -> None:
    losses = "  ".join(f"{task} {loss:.4f}" for task, loss in epoch.losses.items())
    CONSOLE.print(f"epoch {epoch.number}  score {epoch.score:.4f}  losses  {losses}", highlight=False)


def say(sentences: Sequence[str]) -> None:
    for sentence in sentences:
        CONSOLE.print(sentence, highlight=False, markup=False)


def show_evaluation(tasks: Sequence[Task], evaluation: Evaluation, title: str) -> None:
    """A row for each task, a column for each figure that some task has."""
    names = list(dict.fromkeys(name for figures in evaluation.values() for name in figures))
    table = Table("task", *names, title=title)
    for task in tasks:
        figures = evaluation.get(task.name, {})
        table.add_row(task.name, *(f"{figures[name]:.4g}" if name in figures else "–" for name in names))
    CONSOLE.print(table)


def print_json(**found: Any) -> None:
    """One line on standard output, where nothing else goes."""
    print(json.dumps(found, allow_nan=False), flush=True)
