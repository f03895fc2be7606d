"""What an evaluation found, as one value: the JSON is this value, the pages show it."""

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from contract.tasks import Task
from model.declared import Shape
from training.comparison import ALL, SCORE, Difference, Spread, differences, figure_of, headline, spread
from training.crossing import Run, Shown, crossed
from training.examples import Examples
from training.folds import Fold, cut
from training.labels import known
from training.methods import OURS, SINGLE, Method
from training.pages import filled
from training.plan import Plan
from training.plots import curves

LIBRARIES: Final = ("torch", "lightgbm", "numpy", "scipy")


class FoldFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`origin`: the time that a model may know of, ISO 8601 UTC; None where chance cut all. Rows with a label."""

    number: int
    origin: str | None
    learned: dict[str, int]
    judged: dict[str, int]


class MethodFindings(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over runs by task; `seconds` of CPU of one run."""

    score: Spread | None
    tasks: dict[str, dict[str, Spread]]
    seconds: float


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an evaluation found, and what it takes to find it again."""

    data: str
    data_sha256: str
    features: str
    examples: int
    tasks: tuple[Task, ...]
    shape: Shape
    plan: Plan
    libraries: dict[str, str]
    seeds: tuple[int, ...]
    folds: list[FoldFacts]
    methods: dict[str, MethodFindings]
    differences: list[Difference]
    runs: list[Run]

    @property
    def together(self) -> list[Difference]:
        """What the network gains by learning the tasks together."""
        return [one for one in self.differences if one.other == SINGLE]

    def figures(self, task: str) -> list[str]:
        """The names of the task's figures that some method has."""
        found = [name for method in self.methods.values() for name in method.tasks.get(task, {})]
        return list(dict.fromkeys(found))


def find(
    data: Path,
    examples: Examples,
    methods: Mapping[str, Method],
    declared: tuple[Shape, Plan],
    *,
    folds: int,
    seeds: Sequence[int],
    report: Callable[[Run], None],
) -> tuple[Findings, Shown]:
    """Run each method on each fold with each seed; raises `BadData` for what cannot be learned from or judged."""
    facts = list[FoldFacts]()
    runs, shown = crossed(noted(cut(examples, folds), facts), methods, seeds, report)
    others = [name for name in methods if name != OURS]
    found = Findings(
        data=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        features=examples.features.digest,
        examples=len(examples),
        tasks=examples.tasks,
        shape=declared[0],
        plan=declared[1],
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        seeds=tuple(seeds),
        folds=facts,
        methods={name: gathered(runs, name, examples.tasks) for name in methods},
        differences=differences(runs, examples.tasks, OURS, others) if OURS in methods else [],
        runs=runs,
    )
    return found, shown


def noted(folds: Iterable[Fold], facts: list[FoldFacts]) -> Iterator[Fold]:
    """The same folds; what each is like is noted as it goes by."""
    for fold in folds:
        origin = None if fold.origin_ms is None else datetime.fromtimestamp(fold.origin_ms / 1_000, UTC).isoformat()
        learned, judged = counted(fold.learning), counted(fold.judging)
        facts.append(FoldFacts(number=fold.number, origin=origin, learned=learned, judged=judged))
        yield fold


def counted(examples: Examples) -> dict[str, int]:
    return {task: int(known(label).sum()) for task, label in examples.labels.items()}


def gathered(runs: Sequence[Run], method: str, tasks: Sequence[Task]) -> MethodFindings:
    """The spread of each figure of a method."""
    score, own = figure_of(runs, method, ALL, SCORE), [run for run in runs if run.method == method]
    found = dict[str, dict[str, Spread]]()
    for task in tasks:
        names = dict.fromkeys(name for run in own for name in run.tasks.get(task.name, {}))
        figures = {name: spread(figure_of(runs, method, task.name, name)) for name in names}
        if figures:
            found[task.name] = figures
    seconds = sum(run.seconds for run in own) / max(len(own), 1)
    return MethodFindings(score=spread(score) if score else None, tasks=found, seconds=round(seconds, 2))


def pages_of(found: Findings, shown: Shown, command: str) -> dict[str, bytes]:
    """The report's files by name."""
    headlines = {task.name: headline(task) for task in found.tasks}
    drawn = {task.name: svg for task in found.tasks if (svg := drawn_curves(task, shown))}
    return {
        "evaluation.json": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n",
        "evaluation.md": filled("evaluation.md", found=found, headlines=headlines, command=command).encode(),
        "evaluation.html": filled(
            "evaluation.html", found=found, headlines=headlines, curves=drawn, command=command
        ).encode(),
    }


def drawn_curves(task: Task, shown: Shown) -> str | None:
    """Curves of the last fold; None where no method answered, or where the labels are all equal."""
    judging = shown.judging
    rows = judging.known(task)
    y = judging.labels[task.name][rows]
    said = {method: of[task.name][rows] for method, of in shown.predictions.items() if task.name in of}
    if not said or not len(y) or (y == y[0]).all():
        return None
    return curves(task, y, said, judging.classes.get(task.name, ()))
