"""`python -m training evaluate`: the network against single-task nets and LightGBM, by cross-validation."""

import math
import shlex
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from contract.units import DAY_MS
from training.analysis.baselines import METHODS, build_methods
from training.analysis.cross_validation import Run
from training.analysis.evaluation_report import EvaluationReport, evaluate_methods, render_pages
from training.commands.fit import read_configs
from training.data.folds import FOLDS_MIN, drop_unsettled
from training.data.parquet import read_examples
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.report.console import format_number, print_json, print_lines
from training.report.pages import find_output_errors, write_pages
from training.trainer.size_defaults import adapt_configs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="examples as Parquet")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="the folder of the report")
    parser.add_argument("--folds", type=int, default=3, help="rolling origins, or random parts without event times")
    parser.add_argument("--seeds", type=int, default=3, help="how often each method is trained in each fold")
    parser.add_argument(
        "--settle-days", type=float, default=0.0, help="leave out the latest days, whose labels may still change"
    )
    parser.add_argument("--epochs", type=int, help="passes over the data, instead of the setting")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these methods")
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare the declared network with single-task nets and trees; nothing is written before all runs are done."""
    started_s = time.monotonic()
    check_arguments(args)
    model_config, config = read_configs(settings, features, {"epochs": args.epochs})
    torch.set_num_threads(config.threads)
    examples = read_examples(args.data, features, settings.tasks, erasures=read_erasures(args, settings))
    model_config, config = adapt_configs(model_config, config, len(examples))
    available = build_methods(model_config, config)
    methods = {name: available[name] for name in args.methods or available}
    report, curve_data = evaluate_methods(
        args.data,
        drop_unsettled(examples, round(args.settle_days * DAY_MS)),
        methods,
        (model_config, config),
        folds=args.folds,
        seeds=range(config.seed, config.seed + args.seeds),
        report=RunProgress(total=len(methods) * args.folds * args.seeds),
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
    """Raises `BadConfig` for numbers that allow no comparison."""
    errors = list[str]()
    if args.seeds < 1:
        errors.append(f"`--seeds` should be at least 1. Found {args.seeds}.")
    if args.folds < FOLDS_MIN:
        errors.append(f"`--folds` should be at least {FOLDS_MIN}. Found {args.folds}.")
    if args.epochs is not None and args.epochs < 1:
        errors.append(f"`--epochs` should be at least 1. Found {args.epochs}.")
    if math.isnan(args.settle_days) or args.settle_days < 0:
        errors.append(f"`--settle-days` should be 0 or more. Found {args.settle_days:g}.")
    errors += find_output_errors(args.out)
    if errors:
        raise BadConfig(errors)


class RunProgress:
    """Prints each run as it ends, and how many there are in all."""

    def __init__(self, *, total: int) -> None:
        self._total, self._done = total, 0

    def __call__(self, run: Run) -> None:
        self._done += 1
        score = "none" if run.score is None else f"{run.score:.4f}"
        run_label = f"fold {run.fold}  seed {run.seed}  {run.method:11}"
        print_lines(f"{self._done} of {self._total}  {run_label}  score {score}  {run.seconds:.1f} s of CPU")


def format_findings(report: EvaluationReport) -> list[str]:
    """The scores and the differences of headline metrics, for the terminal."""
    lines = list[str]()
    for name, method in report.methods.items():
        if method.score is not None:
            seeds_sd, folds_sd = format_number(method.score.seeds_sd), format_number(method.score.folds_sd)
            lines.append(f"{name}: score {method.score.mean:.4f} ± {seeds_sd} over seeds, {folds_sd} over folds")
    for difference in report.differences:
        if difference.figure != "gain":
            p = "without a p" if difference.p is None else f"p = {difference.p:.3g}"
            lines.append(
                f"{difference.task} {difference.figure}: {difference.mean:+.4f} against {difference.other} "
                f"({p}, {difference.runs} pairs)"
            )
    return lines


def format_command(args: Namespace) -> str:
    """The command that repeats this evaluation."""
    words = ["python", "-m", "training", "evaluate", Path(args.data).name]
    words += ["--seeds", str(args.seeds), "--folds", str(args.folds)]
    if args.settle_days:
        words += ["--settle-days", f"{args.settle_days:g}"]
    if args.epochs is not None:
        words += ["--epochs", str(args.epochs)]
    if args.methods:
        words += ["--methods", *args.methods]
    return shlex.join(words)
