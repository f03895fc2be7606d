"""`python -m training compare`: a model on trial beside the one that serves, judged by what became true."""

import time
from argparse import Namespace

import msgspec
from rich.table import Table

from contract.bundle import current_version
from contract.errors import BadConfig, BadData
from contract.experiment import read_trial
from contract.features.declaration import FeatureSet
from contract.settings import Settings
from training.data.folds import DAY_MS
from training.feedback.feedback_reader import FeedbackReader
from training.report.console import CONSOLE, print_json, print_lines
from training.report.pages import find_output_errors, format_number, render_template, write_pages
from training.stats.served_comparison import CONFIDENCE, MetricComparison, ModelComparison, compare_models
from training.stats.served_scores import ServedScoreStore, list_versions

HOUR_MS = 3_600_000


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Judge both by the feedback topic, in a shadow and in a canary, as far as there were any."""
    started_s = time.monotonic()
    if errors := [*find_output_errors(args.out), *find_argument_errors(args)]:
        raise BadConfig(errors)
    serving, challenger = args.versions or read_versions(args, settings)
    scores = read_feedback(args, settings)
    settled_ms = (time.time() - args.settle_days * DAY_MS / 1000) * 1000
    rows = scores.rows(settled_ms if args.settle_days else float("inf"))
    comparisons = compare_models(rows, settings.tasks, serving, challenger, seed=settings.training.seed)
    if not comparisons:
        others = ", ".join(list_versions(rows)) or "none"
        raise BadData(
            f"Examples should have labels of rows that {serving} and {challenger} answered. Found none in {len(rows)}; "
            f"they are of: {others}."
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


def find_argument_errors(args: Namespace) -> list[str]:
    errors = [f"`--since` should be above 0. Found {args.since}."] * (args.since is not None and not args.since > 0)
    return errors + [f"`--settle-days` should be 0 or more. Found {args.settle_days:g}."] * (not args.settle_days >= 0)


def read_versions(args: Namespace, settings: Settings) -> tuple[str, str]:
    """The bundle that serves and the one on trial; raises `BadConfig` where they are not two."""
    bundles = args.bundles or settings.bundles
    serving, trial = current_version(bundles), read_trial(bundles)
    if serving is None or trial is None:
        raise BadConfig(
            ["A trial should be on, or `--versions` name a serving bundle and a challenger. Found neither."]
        )
    return serving, trial.version


def read_feedback(args: Namespace, settings: Settings) -> ServedScoreStore:
    """The examples that came in the last hours, or all that the topic has; raises `Unavailable`."""
    feed, scores = FeedbackReader(kafka=settings.kafka, topic=settings.topics.feedback), ServedScoreStore()
    try:
        since = {} if args.since is None else feed.offsets_for_time(round(time.time() * 1000 - args.since * HOUR_MS))
        feed.for_each(since, scores.add)
    finally:
        feed.close()
    return scores


def render_pages(comparisons: list[ModelComparison], examples: int, since: float | None) -> dict[str, bytes]:
    """The report's files by name."""
    page = render_template(
        "comparison.html",
        found=comparisons,
        examples=examples,
        since=since,
        shown=format_difference,
        confidence=CONFIDENCE,
    )
    return {
        "comparison.json": msgspec.json.format(msgspec.json.encode(comparisons), indent=1) + b"\n",
        "comparison.html": page.encode(),
    }


def build_table(comparison: ModelComparison) -> Table:
    """A row for each task and figure."""
    title = f"{comparison.way}: {comparison.challenger} beside {comparison.serving}"
    table = Table("task", "rows", "figure", "serving", "challenger", "difference", title=title, title_justify="left")
    for task, figures in comparison.tasks.items():
        rows = f"{figures.rows[0]:,}" if comparison.way == "shadow" else f"{figures.rows[0]:,} / {figures.rows[1]:,}"
        for name, value in figures.figures.items():
            table.add_row(
                task,
                rows,
                name,
                format_number(value.serving),
                format_number(value.challenger),
                format_difference(value),
            )
    return table


def format_difference(value: MetricComparison) -> str:
    """The difference with its interval, and what it speaks for."""
    if value.difference is None:
        return "–"
    interval = "" if value.low is None else f" [{value.low:+.4f}, {value.high:+.4f}]"
    word = {True: " better", False: " worse", None: ""}[value.is_better]
    return f"{value.difference:+.4f}{interval}{word}"
