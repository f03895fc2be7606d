"""The results of an evaluation as one value: the JSON file is this value, the pages show it."""

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from contract.units import SECOND_MS
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
from training.report.pages import encode_json, render_template
from training.report.plots import plot_curves

LIBRARIES: Final = ("torch", "lightgbm", "numpy", "scipy")


class FoldSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`origin`: the end of the training period, ISO 8601 UTC; None for random splits. Labelled rows of each part."""

    number: int
    origin: str | None
    learned: dict[str, int]
    judged: dict[str, int]


class MethodSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics over runs by task; `seconds` of CPU per run."""

    score: Spread | None
    tasks: dict[str, dict[str, Spread]]
    seconds: float


class EvaluationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All results of an evaluation, and everything needed to repeat it."""

    data: str
    data_sha256: str
    features: str
    examples: int
    tasks: tuple[Task, ...]
    model_config: ModelConfig = msgspec.field(name="shape")
    config: TrainingConfig = msgspec.field(name="plan")
    libraries: dict[str, str]
    seeds: tuple[int, ...]
    folds: list[FoldSummary]
    methods: dict[str, MethodSummary]
    differences: list[Difference]
    runs: list[Run]

    @property
    def gains_over_single_task(self) -> list[Difference]:
        """What the network gains by multi-task learning."""
        return [difference for difference in self.differences if difference.other == SINGLE]

    def figures(self, task: str) -> list[str]:
        """The names of the metrics that some method has of the task."""
        names = [name for method in self.methods.values() for name in method.tasks.get(task, {})]
        return list(dict.fromkeys(names))


def evaluate_methods(
    data: Path,
    examples: Examples,
    methods: Mapping[str, Method],
    configs: tuple[ModelConfig, TrainingConfig],
    *,
    folds: int,
    seeds: Sequence[int],
    report: Callable[[Run], None],
) -> tuple[EvaluationReport, CurveData]:
    """Run each method on each fold with each seed; raises `BadData` for folds without training or validation rows."""
    summaries = list[FoldSummary]()
    runs, curve_data = cross_validate(record_folds(split_folds(examples, folds), summaries), methods, seeds, report)
    others = [name for name in methods if name != OURS]
    evaluation = EvaluationReport(
        data=data.name,
        data_sha256=hashlib.sha256(data.read_bytes()).hexdigest(),
        features=examples.features.digest,
        examples=len(examples),
        tasks=examples.tasks,
        model_config=configs[0],
        config=configs[1],
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        seeds=tuple(seeds),
        folds=summaries,
        methods={name: summarize_method(runs, name, examples.tasks) for name in methods},
        differences=compare_all(runs, examples.tasks, OURS, others) if OURS in methods else [],
        runs=runs,
    )
    return evaluation, curve_data


def record_folds(folds: Iterable[Fold], summaries: list[FoldSummary]) -> Iterator[Fold]:
    """Yield the folds, and append a summary of each to `summaries`."""
    for fold in folds:
        origin = None if fold.origin_ms is None else datetime.fromtimestamp(fold.origin_ms / SECOND_MS, UTC).isoformat()
        learned, judged = count_labels(fold.training), count_labels(fold.validation)
        summaries.append(FoldSummary(number=fold.number, origin=origin, learned=learned, judged=judged))
        yield fold


def count_labels(examples: Examples) -> dict[str, int]:
    return {task: int(has_label(label).sum()) for task, label in examples.labels.items()}


def summarize_method(runs: Sequence[Run], method: str, tasks: Sequence[Task]) -> MethodSummary:
    """The spread of each metric of a method."""
    score = collect_metric(runs, method, ALL, SCORE)
    own_runs = [run for run in runs if run.method == method]
    spreads = dict[str, dict[str, Spread]]()
    for task in tasks:
        names = dict.fromkeys(name for run in own_runs for name in run.tasks.get(task.name, {}))
        if names:
            spreads[task.name] = {name: measure_spread(collect_metric(runs, method, task.name, name)) for name in names}
    seconds = sum(run.seconds for run in own_runs) / max(len(own_runs), 1)
    return MethodSummary(score=measure_spread(score) if score else None, tasks=spreads, seconds=round(seconds, 2))


def render_pages(evaluation: EvaluationReport, curve_data: CurveData, command: str) -> dict[str, bytes]:
    """The report's files by name."""
    headlines = {task.name: choose_headline(task) for task in evaluation.tasks}
    curves = {task.name: svg for task in evaluation.tasks if (svg := draw_curves(task, curve_data))}
    markdown = render_template("evaluation.md", report=evaluation, headlines=headlines, command=command)
    html = render_template("evaluation.html", report=evaluation, headlines=headlines, curves=curves, command=command)
    return {
        "evaluation.json": encode_json(evaluation),
        "evaluation.md": markdown.encode(),
        "evaluation.html": html.encode(),
    }


def draw_curves(task: Task, curve_data: CurveData) -> str | None:
    """The curves of the last fold; None without predictions, or if all labels are equal."""
    validation = curve_data.validation
    rows = validation.has_label(task)
    y = validation.labels[task.name][rows]
    predictions = {
        method: answers[task.name][rows] for method, answers in curve_data.predictions.items() if task.name in answers
    }
    if not predictions or not len(y) or (y == y[0]).all():
        return None
    return plot_curves(task, y, predictions, validation.classes.get(task.name, ()))
