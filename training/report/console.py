"""Output of the commands: sentences and tables on standard error, one line of JSON on standard output."""

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
    """A table with a column for each task and a row for each metric."""
    names = [task.name for task in tasks if task.name in evaluation]
    if not names:
        return
    table = Table("", *names, title=title, title_justify="left")
    for metric in dict.fromkeys(metric for metrics in evaluation.values() for metric in metrics):
        table.add_row(metric, *(format_number(evaluation[name].get(metric)) for name in names))
    CONSOLE.print(table)


def format_number(value: float | None) -> str:
    """Four significant digits; a dash for None and NaN."""
    return "–" if value is None or value != value else f"{value:.4g}"


def print_json(**fields: Any) -> None:
    """One line of JSON, the only output on standard output."""
    print(json.dumps(fields, allow_nan=False), flush=True)
