"""`python -m training compare`: a model on trial beside the one that serves, judged by what became true."""

import time
from argparse import Namespace

import msgspec
from rich.table import Table

from contract.bundle import current_version
from contract.errors import BadConfig, BadData
from contract.features import FeatureSet
from contract.settings import Settings
from contract.trial import read_trial
from training.contest import CONFIDENCE, Contest, Figure, contests
from training.feed import Feed
from training.folds import DAY_MS
from training.pages import figure, filled, mistakes_of, write_pages
from training.plan import read_plan
from training.report import CONSOLE, print_json, say
from training.said import Heard, versions_of

HOUR_MS = 3_600_000


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Judge both by the feedback topic, in a shadow and in a canary, as far as there were any."""
    begun = time.monotonic()
    if errors := [*mistakes_of(args.out), *mistakes_in(args)]:
        raise BadConfig(errors)
    serving, challenger = args.versions or pointed_to(args, settings)
    heard = read(args, settings)
    settled_ms = (time.time() - args.settle_days * DAY_MS / 1000) * 1000
    rows = heard.rows(settled_ms if args.settle_days else float("inf"))
    found = contests(rows, settings.tasks, serving, challenger, seed=read_plan(settings.training).seed)
    if not found:
        others = ", ".join(versions_of(rows)) or "none"
        raise BadData(
            f"Examples should have labels of rows that {serving} and {challenger} answered. Found none in {len(rows)}; "
            f"they are of: {others}."
        )
    pages = write_pages(args.out, pages_of(found, len(rows), args.since))
    for one in found:
        CONSOLE.print(table_of(one))
    say(*(f"See {page}" for page in pages))
    print_json(
        contests=msgspec.to_builtins(found),
        examples=len(rows),
        unreadable=heard.unreadable,
        pages=[str(page) for page in pages],
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def mistakes_in(args: Namespace) -> list[str]:
    errors = [f"`--since` should be above 0. Found {args.since}."] * (args.since is not None and not args.since > 0)
    return errors + [f"`--settle-days` should be 0 or more. Found {args.settle_days:g}."] * (not args.settle_days >= 0)


def pointed_to(args: Namespace, settings: Settings) -> tuple[str, str]:
    """The bundle that serves and the one on trial; raises `BadConfig` where they are not two."""
    bundles = args.bundles or settings.bundles
    serving, trial = current_version(bundles), read_trial(bundles)
    if serving is None or trial is None:
        raise BadConfig(
            ["A trial should be on, or `--versions` name a serving bundle and a challenger. Found neither."]
        )
    return serving, trial.version


def read(args: Namespace, settings: Settings) -> Heard:
    """The examples that came in the last hours, or all that the topic has; raises `Unavailable`."""
    feed, heard = Feed(kafka=settings.kafka, topic=settings.topics.feedback), Heard()
    try:
        since = {} if args.since is None else feed.positions_at(round(time.time() * 1000 - args.since * HOUR_MS))
        feed.each(since, heard.add)
    finally:
        feed.close()
    return heard


def pages_of(found: list[Contest], examples: int, since: float | None) -> dict[str, bytes]:
    """The report's files by name."""
    page = filled("comparison.html", found=found, examples=examples, since=since, shown=shown, confidence=CONFIDENCE)
    return {
        "comparison.json": msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n",
        "comparison.html": page.encode(),
    }


def table_of(one: Contest) -> Table:
    """A row for each task and figure."""
    title = f"{one.way}: {one.challenger} beside {one.serving}"
    table = Table("task", "rows", "figure", "serving", "challenger", "difference", title=title, title_justify="left")
    for task, of in one.tasks.items():
        rows = f"{of.rows[0]:,}" if one.way == "shadow" else f"{of.rows[0]:,} / {of.rows[1]:,}"
        for name, value in of.figures.items():
            table.add_row(task, rows, name, figure(value.serving), figure(value.challenger), shown(value))
    return table


def shown(value: Figure) -> str:
    """The difference with its interval, and what it speaks for."""
    if value.difference is None:
        return "–"
    interval = "" if value.low is None else f" [{value.low:+.4f}, {value.high:+.4f}]"
    word = {True: " better", False: " worse", None: ""}[value.is_better]
    return f"{value.difference:+.4f}{interval}{word}"
