"""`python -m training evaluate`: from its arguments to its pages and its last line of JSON."""

import shlex
import time
from argparse import Namespace
from pathlib import Path

import torch

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings import Settings
from training.analysis.baselines import build_methods
from training.analysis.cross_validation import Run
from training.analysis.evaluation_report import EvaluationReport, evaluate_methods, render_pages
from training.commands.fit import read_configs
from training.data.folds import DAY_MS, FOLDS_MIN, drop_unsettled
from training.data.parquet import read_examples
from training.report.console import print_json, print_lines
from training.report.pages import find_output_errors, format_number, write_pages


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare the declared network with single-task nets and trees; nothing is written before all is measured."""
    started_s = time.monotonic()
    check_arguments(args)
    shape, plan = read_configs(settings, features, {} if args.epochs is None else {"epochs": args.epochs})
    torch.set_num_threads(plan.threads)
    known = build_methods(shape, plan)
    methods = {name: known[name] for name in args.methods or known}
    seeds = range(plan.seed, plan.seed + args.seeds)
    examples = drop_unsettled(read_examples(args.data, features, settings.tasks), round(args.settle_days * DAY_MS))
    report, curve_data = evaluate_methods(
        args.data,
        examples,
        methods,
        (shape, plan),
        folds=args.folds,
        seeds=seeds,
        report=RunProgress(len(methods), args),
    )
    pages = write_pages(args.out, render_pages(report, curve_data, format_command(args)))
    print_lines(*format_findings(report), *(f"See {page}" for page in pages))
    print_json(
        score={name: None if method.score is None else method.score.mean for name, method in report.methods.items()},
        pages=[str(page) for page in pages],
        runs=len(report.runs),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def check_arguments(args: Namespace) -> None:
    """Raises `BadConfig` for numbers that give no comparison."""
    errors = [f"`--seeds` should be at least 1. Found {args.seeds}."] * (args.seeds < 1)
    errors += [f"`--folds` should be at least {FOLDS_MIN}. Found {args.folds}."] * (args.folds < FOLDS_MIN)
    errors += [f"`--epochs` should be at least 1. Found {args.epochs}."] * (args.epochs is not None and args.epochs < 1)
    errors += [f"`--settle-days` should be 0 or more. Found {args.settle_days:g}."] * (not args.settle_days >= 0)
    errors += find_output_errors(args.out)
    if errors:
        raise BadConfig(errors)


class RunProgress:
    """Says of each run how it went, and how many there are still to come."""

    def __init__(self, methods: int, args: Namespace) -> None:
        self._total, self._done = methods * args.folds * args.seeds, 0

    def __call__(self, run: Run) -> None:
        self._done += 1
        score = "none" if run.score is None else f"{run.score:.4f}"
        run_label = f"fold {run.fold}  seed {run.seed}  {run.method:11}"
        print_lines(f"{self._done} of {self._total}  {run_label}  score {score}  {run.seconds:.1f} s of CPU")


def format_findings(report: EvaluationReport) -> list[str]:
    """The main findings, for the terminal."""
    scores = [(name, method.score) for name, method in report.methods.items() if method.score is not None]
    lines = [
        f"{name}: score {score.mean:.4f} ± {format_number(score.seeds_sd)} over seeds, {format_number(score.folds_sd)} over folds"
        for name, score in scores
    ]
    for difference in report.differences:
        if difference.figure != "gain":
            p = "without a p" if difference.p is None else f"p = {difference.p:.3g}"
            lines.append(
                f"{difference.task} {difference.figure}: {difference.mean:+.4f} against {difference.other} ({p}, {difference.runs} pairs)"
            )
    return lines


def format_command(args: Namespace) -> str:
    """The command that repeats this."""
    words = ["python", "-m", "training", "evaluate", Path(args.data).name]
    words += ["--seeds", str(args.seeds), "--folds", str(args.folds)]
    words += ["--settle-days", f"{args.settle_days:g}"] if args.settle_days else []
    words += [] if args.epochs is None else ["--epochs", str(args.epochs)]
    words += ["--methods", *args.methods] if args.methods else []
    return shlex.join(words)
