"""What an evaluation found, as one value: the JSON is this value, the pages show it."""

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from contract.settings import ModelConfig, TrainingConfig, encode_section
from contract.tasks import Task
from training.analysis.baselines import OURS, SINGLE, Method
from training.analysis.cross_validation import CurveData, Run, cross_validate
from training.analysis.cv_comparison import (
    ALL,
    SCORE,
    Difference,
    Spread,
    choose_headline,
    collect_metric,
    compare_all,
    measure_spread,
)
from training.data.examples import Examples
from training.data.folds import Fold, split_folds
from training.data.labels import has_label
from training.report.pages import render_template
from training.report.plots import plot_curves

LIBRARIES: Final = ("torch", "lightgbm", "numpy", "scipy")


class FoldSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`origin`: the time that a model may know of, ISO 8601 UTC; None where chance cut all. Rows with a label."""

    number: int
    origin: str | None
    learned: dict[str, int]
    judged: dict[str, int]


class MethodSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over runs by task; `seconds` of CPU of one run."""

    score: Spread | None
    tasks: dict[str, dict[str, Spread]]
    seconds: float


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an evaluation found, and what it takes to find it again."""

    data: str
    data_sha256: str
    features: str
    examples: int
    tasks: tuple[Task, ...]
    shape: ModelConfig
    plan: TrainingConfig
    libraries: dict[str, str]
    seeds: tuple[int, ...]
    folds: list[FoldSummary]
    methods: dict[str, MethodSummary]
    differences: list[Difference]
    runs: list[Run]

    @property
    def gains_over_single_task(self) -> list[Difference]:
        """What the network gains by learning the tasks together."""
        return [difference for difference in self.differences if difference.other == SINGLE]

    def figures(self, task: str) -> list[str]:
        """The names of the task's figures that some method has."""
        names = [name for method in self.methods.values() for name in method.tasks.get(task, {})]
        return list(dict.fromkeys(names))


def evaluate_methods(
    data: Path,
    examples: Examples,
    methods: Mapping[str, Method],
    declared: tuple[ModelConfig, TrainingConfig],
    *,
    folds: int,
    seeds: Sequence[int],
    report: Callable[[Run], None],
) -> tuple[EvaluationReport, CurveData]:
    """Run each method on each fold with each seed; raises `BadData` for what cannot be learned from or judged."""
    summaries = list[FoldSummary]()
    runs, curve_data = cross_validate(record_folds(split_folds(examples, folds), summaries), methods, seeds, report)
    others = [name for name in methods if name != OURS]
    evaluation = EvaluationReport(
        data=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        features=examples.features.digest,
        examples=len(examples),
        tasks=examples.tasks,
        shape=declared[0],
        plan=declared[1],
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        seeds=tuple(seeds),
        folds=summaries,
        methods={name: summarize_method(runs, name, examples.tasks) for name in methods},
        differences=compare_all(runs, examples.tasks, OURS, others) if OURS in methods else [],
        runs=runs,
    )
    return evaluation, curve_data


def record_folds(folds: Iterable[Fold], summaries: list[FoldSummary]) -> Iterator[Fold]:
    """The same folds; what each is like is noted as it goes by."""
    for fold in folds:
        origin = None if fold.origin_ms is None else datetime.fromtimestamp(fold.origin_ms / 1_000, UTC).isoformat()
        learned, judged = count_labels(fold.training), count_labels(fold.validation)
        summaries.append(FoldSummary(number=fold.number, origin=origin, learned=learned, judged=judged))
        yield fold


def count_labels(examples: Examples) -> dict[str, int]:
    return {task: int(has_label(label).sum()) for task, label in examples.labels.items()}


def summarize_method(runs: Sequence[Run], method: str, tasks: Sequence[Task]) -> MethodSummary:
    """The spread of each figure of a method."""
    score, own_runs = collect_metric(runs, method, ALL, SCORE), [run for run in runs if run.method == method]
    spreads = dict[str, dict[str, Spread]]()
    for task in tasks:
        names = dict.fromkeys(name for run in own_runs for name in run.tasks.get(task.name, {}))
        figures = {name: measure_spread(collect_metric(runs, method, task.name, name)) for name in names}
        if figures:
            spreads[task.name] = figures
    seconds = sum(run.seconds for run in own_runs) / max(len(own_runs), 1)
    return MethodSummary(score=measure_spread(score) if score else None, tasks=spreads, seconds=round(seconds, 2))


def render_pages(evaluation: EvaluationReport, curve_data: CurveData, command: str) -> dict[str, bytes]:
    """The report's files by name."""
    headlines = {task.name: choose_headline(task) for task in evaluation.tasks}
    figures = {task.name: svg for task in evaluation.tasks if (svg := draw_curves(task, curve_data))}
    return {
        "evaluation.json": msgspec.json.format(msgspec.json.encode(evaluation, enc_hook=encode_section), indent=1)
        + b"\n",
        "evaluation.md": render_template(
            "evaluation.md", found=evaluation, headlines=headlines, command=command
        ).encode(),
        "evaluation.html": render_template(
            "evaluation.html", found=evaluation, headlines=headlines, curves=figures, command=command
        ).encode(),
    }


def draw_curves(task: Task, curve_data: CurveData) -> str | None:
    """Curves of the last fold; None where no method answered, or where the labels are all equal."""
    validation = curve_data.validation
    rows = validation.has_label(task)
    y = validation.labels[task.name][rows]
    predictions = {
        method: answers[task.name][rows] for method, answers in curve_data.predictions.items() if task.name in answers
    }
    if not predictions or not len(y) or (y == y[0]).all():
        return None
    return plot_curves(task, y, predictions, validation.classes.get(task.name, ()))
