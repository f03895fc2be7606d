"""What a person sees of training: sentences and tables; and the last line of JSON, for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from contract.tasks import Task

CONSOLE: Final = Console(stderr=True)


def print_lines(*sentences: str) -> None:
    for sentence in sentences:
        CONSOLE.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_evaluation(tasks: Sequence[Task], evaluation: Mapping[str, Mapping[str, float]], title: str) -> None:
    """A column for each task, a row for each figure that some task has."""
    shown = [task.name for task in tasks if task.name in evaluation]
    table = Table("", *shown, title=title, title_justify="left")
    for name in dict.fromkeys(name for figures in evaluation.values() for name in figures):
        values = [evaluation[task].get(name) for task in shown]
        table.add_row(name, *("–" if value is None else f"{value:.4g}" for value in values))
    CONSOLE.print(table)


def print_json(**fields: Any) -> None:
    """One line on standard output, where nothing else goes."""
    print(json.dumps(fields, allow_nan=False), flush=True)
