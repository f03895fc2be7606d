"""`python -m training offpolicy`: what a new ranking would have earned, from logs with propensities."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rich.table import Table

from contract.bundle import read_bundle
from contract.errors import BadConfig, BadData
from contract.features.declaration import FeatureSet
from contract.object_folder import open_folder
from contract.settings.reading import Settings
from contract.units import DAY_MS, HOUR_MS, SECOND_MS
from export.releases import locate_bundle
from training.erasure.arguments import fetch_erasures
from training.feedback.feedback_reader import FeedbackReader
from training.offpolicy.evaluation import OffPolicyEvaluation, evaluate_target
from training.offpolicy.list_ranking import reorder_lists, score_lists, value_items
from training.offpolicy.logged_actions import LoggedActions
from training.offpolicy.served_lists import ServedListStore, ShownList
from training.offpolicy.table import LISTS, SINGLE, read_logged_actions
from training.report.console import CONSOLE, print_json, print_lines
from training.scoring.bundle_scorer import BundleScorer
from training.stats.overlap import OverlapLimits

EXIT_REFUSED: Final = 3
LIMITS: Final = OverlapLimits()
NAMES: Final = {"ips": "IPS", "snips": "self-normalised IPS", "dr": "doubly robust"}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="?", metavar="BUNDLE", help="a version or a folder: the ranking to evaluate on served lists"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="logged actions as Parquet or CSV, instead")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="of --table: the file's name of a column, for example reward=clicked",
    )
    parser.add_argument("--since", type=float, metavar="HOURS", help="lists of the last HOURS only")
    parser.add_argument("--settle-days", type=float, default=0.0, help="leave out lists of the latest days")
    parser.add_argument("--lists", type=int, default=50_000, help="the latest lists, at most")
    parser.add_argument(
        "--reward", choices=("click", "purchase", "value"), default="click", help="value: a click + worth of a purchase"
    )
    parser.add_argument(
        "--examination",
        type=float,
        nargs="+",
        metavar="P",
        help="the probability that each place of a list is looked at, first place first",
    )
    parser.add_argument("--units-min", type=float, default=LIMITS.units_min, help="the least effective units")
    parser.add_argument("--rewards-min", type=float, default=LIMITS.rewards_min, help="the least effective rewards")
    parser.add_argument(
        "--uncovered-max", type=float, default=LIMITS.uncovered_max, help="share of choices that the logs may lack"
    )
    parser.add_argument(
        "--unit-share-max", type=float, default=LIMITS.unit_share_max, help="share of the weight that a unit may have"
    )
    parser.add_argument("--bundles", help="the folder of bundles or its URL, instead of the setting")


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Evaluate. 0: estimates; 3: refused, because the logs lack what the new ranking would show."""
    started_s = time.monotonic()
    if errors := list(find_argument_errors(args)):
        raise BadConfig(errors)
    if args.table:
        logs, details = read_logged_actions(args.table, parse_columns(args.column)), dict[str, Any]()
    else:
        logs, details = read_reordered_lists(args, settings, features)
    limits = OverlapLimits(args.units_min, args.rewards_min, args.uncovered_max, args.unit_share_max)
    evaluation = evaluate_target(logs, limits, seed=settings.training.seed)
    print_evaluation(evaluation)
    print_json(**msgspec.to_builtins(evaluation), **details, seconds=round(time.monotonic() - started_s, 2))
    return EXIT_REFUSED if evaluation.refused else 0


def find_argument_errors(args: Namespace) -> Iterator[str]:
    if (args.bundle is None) == (args.table is None):
        yield "A BUNDLE or `--table` should be given, not both. Found " + ("none." if args.table is None else "both.")
    if args.column and not args.table:
        yield "`--column` should come with `--table`. Found none."
    accepted = (*SINGLE, *LISTS)
    for text in args.column:
        if text.partition("=")[0] not in accepted or not text.partition("=")[2]:
            yield f"`--column` should be NAME=COLUMN with a NAME of {', '.join(accepted)}. Found {text}."
    if args.since is not None and not args.since > 0:
        yield f"`--since` should be above 0. Found {args.since}."
    if not args.settle_days >= 0:
        yield f"`--settle-days` should be 0 or more. Found {args.settle_days:g}."
    if args.lists < 1:
        yield f"`--lists` should be 1 or more. Found {args.lists}."
    if args.examination and not all(0 < value <= 1 for value in args.examination):
        yield f"`--examination` should be probabilities above 0. Found {args.examination}."
    yield from find_limit_errors(args)


def find_limit_errors(args: Namespace) -> Iterator[str]:
    for name in ("units_min", "rewards_min"):
        if not getattr(args, name) >= 0:
            yield f"`--{name.replace('_', '-')}` should be 0 or more. Found {getattr(args, name)}."
    for name in ("uncovered_max", "unit_share_max"):
        if not 0 <= getattr(args, name) <= 1:
            yield f"`--{name.replace('_', '-')}` should be from 0 to 1. Found {getattr(args, name)}."


def parse_columns(texts: list[str]) -> dict[str, str]:
    """The file's column by name."""
    return {name: column for name, _, column in (text.partition("=") for text in texts)}


def read_reordered_lists(
    args: Namespace, settings: Settings, features: FeatureSet
) -> tuple[LoggedActions, dict[str, Any]]:
    """The lists that were served and shown, with the bundle's order as the target policy."""
    folder, version = locate_bundle(open_folder(args.bundles or settings.bundle_store or settings.bundles), args.bundle)
    scorer = BundleScorer(read_bundle(folder, version), features)
    store = read_lists(args, settings)
    before_ms = time.time() * SECOND_MS - args.settle_days * DAY_MS if args.settle_days else float("inf")
    shown = [served for served in store.join_lists(before_ms) if served.row.features == features.digest]
    check_lists(store, shown, features)
    purchase_value = settings.lists.purchase_value
    values = [value_items(scores, purchase_value) for scores in score_lists(shown, scorer)]
    former_values = [former_value(served, purchase_value) for served in shown]
    rewards = {
        "click": {"click": 1.0},
        "purchase": {"purchase": 1.0},
        "value": {"click": 1.0, "purchase": purchase_value},
    }
    examination = np.array(args.examination) if args.examination else None
    logs = reorder_lists(shown, values, former_values, rewards[args.reward], examination)
    return logs, {
        "version": version,
        "lists": len(shown),
        "lists_not_shown": len(store.lists) - len(store.rewards),
        "lists_with_rules": store.reordered,
        "unreadable": store.unreadable,
    }


def read_lists(args: Namespace, settings: Settings) -> ServedListStore:
    """The latest lists with their examples, without erased people's; raises `Unavailable`."""
    erasures, store = fetch_erasures(settings), ServedListStore(limit=args.lists)
    for topic, add in ((settings.topics.scored, store.add_list), (settings.topics.feedback, store.add_reward)):
        reader = FeedbackReader(kafka=settings.kafka, topic=topic, erasures=erasures)
        try:
            since = dict[str, int]()
            if args.since is not None:
                since = reader.offsets_for_time(round(time.time() * SECOND_MS - args.since * HOUR_MS))
            reader.for_each(since, add)
        finally:
            reader.close()
    return store


def check_lists(store: ServedListStore, shown: list[ShownList], features: FeatureSet) -> None:
    """Raises `BadData` where no list was shown, or only a share of the items without a click was kept."""
    if not shown:
        raise BadData(
            f"Lists with the features {features.digest} should have been served and shown. "
            f"Found none in {len(store.lists)} lists, of which {len(store.rewards)} were shown; "
            f"{store.reordered} more are left out, since list rules reordered them."
        )
    if store.sampled:
        raise BadData(
            "Examples of all shown items should be kept: `negative_rate` of task `click` should be 1. "
            f"Found {store.sampled} examples of a lower rate."
        )


def former_value(served: ShownList, purchase_value: float) -> Any:
    """By which the list was ordered when it was served; 0 for one that no model ranked."""
    scores = {task: np.array(values) for task, values in served.row.scores.items()}
    return value_items(scores, purchase_value) if "click" in scores else np.zeros(len(served.row.items))


def print_evaluation(evaluation: OffPolicyEvaluation) -> None:
    """A table of the estimates, and why there are none on the standard error."""
    overlap = evaluation.overlap
    print_lines(
        f"{overlap.rows:,} rows of {overlap.units:,} units earned {evaluation.logged[0]:.5f} a row "
        f"[{evaluation.logged[1]:.5f}, {evaluation.logged[2]:.5f}]; the weights are worth "
        f"{overlap.effective_units:,.0f} units."
    )
    for sentence in evaluation.refused:
        print(sentence, file=sys.stderr)
    if evaluation.estimates:
        table = Table("estimate", "would earn", "95 % interval", "gain", "95 % interval")
        for name, estimate in evaluation.estimates.items():
            table.add_row(
                NAMES[name],
                f"{estimate.value:.5f}",
                f"{estimate.low:.5f} to {estimate.high:.5f}",
                f"{estimate.gain:+.5f}",
                f"{estimate.gain_low:+.5f} to {estimate.gain_high:+.5f}",
            )
        CONSOLE.print(table)
