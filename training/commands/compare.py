"""`python -m training compare`: a model on trial against the serving one by labels, or the arms of an experiment."""

import math
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec
from rich.table import Table

from contract.bundle import current_version
from contract.errors import BadConfig, BadData
from contract.experiment import read_trial
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from contract.units import DAY_MS, HOUR_MS, SECOND_MS
from training.erasure.arguments import fetch_erasures
from training.experiments.comparison import compare_arms
from training.experiments.outcomes import OUTCOMES
from training.experiments.reading import count_items, read_experiment
from training.experiments.summary import print_experiment
from training.feedback.feedback_reader import FeedbackReader
from training.report.console import CONSOLE, format_number, print_json, print_lines
from training.report.pages import encode_json, find_output_errors, render_template, write_pages
from training.stats.bootstrap import CONFIDENCE
from training.stats.served_comparison import MetricComparison, ModelComparison, compare_models
from training.stats.served_scores import ServedScoreStore, list_versions


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--experiment", metavar="NAME", help="compare what its users did: of [experiments], or a canary's version"
    )
    parser.add_argument(
        "--decides", choices=OUTCOMES, default=OUTCOMES[0], help="of --experiment: the outcome that may stop it"
    )
    parser.add_argument("--since", type=float, metavar="HOURS", help="examples of the last HOURS only")
    parser.add_argument("--versions", nargs=2, metavar=("SERVING", "CHALLENGER"), help="instead of those on trial")
    parser.add_argument("--settle-days", type=float, default=0.0, help="leave out events of the latest days")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the folder of the report")
    parser.add_argument("--bundles", type=Path, help="the folder of bundles, instead of the setting")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare both models on the feedback topic, in shadow and in canary mode as far as there are rows."""
    started_s = time.monotonic()
    if errors := [*find_output_errors(args.out), *find_argument_errors(args)]:
        raise BadConfig(errors)
    if args.experiment:
        return run_experiment(args, settings, started_s)
    serving, challenger = args.versions or read_versions(args, settings)
    scores = read_feedback(args, settings)
    settled_ms = time.time() * SECOND_MS - args.settle_days * DAY_MS
    rows = scores.rows(settled_ms if args.settle_days else float("inf"))
    comparisons = compare_models(rows, settings.tasks, serving, challenger, seed=settings.training.seed)
    if not comparisons:
        others = ", ".join(list_versions(rows)) or "none"
        raise BadData(
            f"Examples should have labels of rows that {serving} and {challenger} scored. Found none in {len(rows)}; "
            f"their versions are: {others}."
        )
    pages = write_pages(args.out, render_pages(comparisons, len(rows), args.since))
    for comparison in comparisons:
        CONSOLE.print(build_table(comparison))
    print_lines(*(f"See {page}" for page in pages))
    print_json(
        contests=msgspec.to_builtins(comparisons),
        examples=len(rows),
        unreadable=scores.unreadable,
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def run_experiment(args: Namespace, settings: Settings, started_s: float) -> int:
    """Compare the arms of an experiment by what their users did."""
    store = read_experiment(settings, args.experiment)
    shown = set[str]().union(*(participant.items for participant in store.participants.values()))
    comparison = compare_arms(
        store,
        args.experiment,
        items=max(count_items(settings), len(shown), 1),
        decides=args.decides,
        share=find_share(args, settings),
    )
    page = render_template("experiment.html", comparison=comparison, confidence=100 * CONFIDENCE)
    pages = write_pages(args.out, {"experiment.json": encode_json(comparison), "experiment.html": page.encode()})
    print_experiment(comparison, store.currencies)
    print_lines(*(f"See {page}" for page in pages))
    print_json(
        **msgspec.to_builtins(comparison),
        unreadable=store.unreadable,
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def find_share(args: Namespace, settings: Settings) -> float | None:
    """The share of users of the variant, by the settings or the trial; None if neither knows the experiment."""
    if args.experiment in settings.experiments:
        return settings.experiments[args.experiment].share
    trial = read_trial(args.bundles or settings.bundles)
    return trial.share if trial and trial.version == args.experiment and trial.share < 1 else None


def find_argument_errors(args: Namespace) -> list[str]:
    errors = list[str]()
    if args.experiment and (args.since is not None or args.versions or args.settle_days):
        errors.append(
            "`--experiment` should come without `--since`, `--settle-days` and `--versions`: its intervals are of all "
            "looks since its first list. Found one of them."
        )
    if args.since is not None and (math.isnan(args.since) or args.since <= 0):
        errors.append(f"`--since` should be above 0. Found {args.since}.")
    if math.isnan(args.settle_days) or args.settle_days < 0:
        errors.append(f"`--settle-days` should be 0 or more. Found {args.settle_days:g}.")
    return errors


def read_versions(args: Namespace, settings: Settings) -> tuple[str, str]:
    """The serving bundle and the one on trial; raises `BadConfig` if one is missing."""
    bundles = args.bundles or settings.bundles
    serving, trial = current_version(bundles), read_trial(bundles)
    if serving is None or trial is None:
        raise BadConfig(
            ["A trial should be on, or `--versions` name a serving bundle and a challenger. Found neither."]
        )
    return serving, trial.version


def read_feedback(args: Namespace, settings: Settings) -> ServedScoreStore:
    """The examples of the last hours, or of the whole topic, without erased people's; raises `Unavailable`."""
    erasures, scores = fetch_erasures(settings), ServedScoreStore()
    reader = FeedbackReader(kafka=settings.kafka, topic=settings.topics.feedback, erasures=erasures)
    try:
        since = dict[str, int]()
        if args.since is not None:
            since = reader.offsets_for_time(round(time.time() * SECOND_MS - args.since * HOUR_MS))
        reader.for_each(since, scores.add)
    finally:
        reader.close()
    return scores


def render_pages(comparisons: list[ModelComparison], examples: int, since: float | None) -> dict[str, bytes]:
    """The report's files by name."""
    page = render_template(
        "comparison.html",
        comparisons=comparisons,
        examples=examples,
        since=since,
        format_difference=format_difference,
        confidence=100 * CONFIDENCE,
    )
    return {"comparison.json": encode_json(comparisons), "comparison.html": page.encode()}


def build_table(comparison: ModelComparison) -> Table:
    """A row for each task and metric."""
    title = f"{comparison.way}: {comparison.challenger} against {comparison.serving}"
    table = Table("task", "rows", "metric", "serving", "challenger", "difference", title=title, title_justify="left")
    for task, results in comparison.tasks.items():
        rows = f"{results.rows[0]:,}"
        if comparison.way == "canary":
            rows += f" / {results.rows[1]:,}"
        for name, metric in results.figures.items():
            values = format_number(metric.serving), format_number(metric.challenger), format_difference(metric)
            table.add_row(task, rows, name, *values)
    return table


def format_difference(metric: MetricComparison) -> str:
    """The difference with its interval, and "better" or "worse" for the challenger if it is beyond chance."""
    if metric.difference is None:
        return "–"
    interval = "" if metric.low is None else f" [{metric.low:+.4f}, {metric.high:+.4f}]"
    word = {True: " better", False: " worse", None: ""}[metric.is_better]
    return f"{metric.difference:+.4f}{interval}{word}"
