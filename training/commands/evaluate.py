"""`python -m training evaluate`: from its arguments to its pages and its last line of JSON."""

import shlex
import time
from argparse import Namespace
from pathlib import Path

import torch

from contract.errors import BadConfig
from contract.features import FeatureSet
from contract.settings import Settings
from training.commands.fit import declared
from training.crossing import Run
from training.findings import Findings, find, pages_of
from training.folds import DAY_MS, FOLDS_MIN, settled
from training.methods import methods_of
from training.pages import figure, mistakes_of, write_pages
from training.report import print_json, say
from training.table import read_examples


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Compare the declared network with single-task nets and trees; nothing is written before all is measured."""
    begun = time.monotonic()
    check(args)
    shape, plan = declared(settings, features, {} if args.epochs is None else {"epochs": args.epochs})
    torch.set_num_threads(plan.threads)
    known = methods_of(shape, plan)
    methods = {name: known[name] for name in args.methods or known}
    seeds = range(plan.seed, plan.seed + args.seeds)
    examples = settled(read_examples(args.data, features, settings.tasks), round(args.settle_days * DAY_MS))
    found, shown = find(
        args.data, examples, methods, (shape, plan), folds=args.folds, seeds=seeds, report=Progress(len(methods), args)
    )
    pages = write_pages(args.out, pages_of(found, shown, command_of(args)))
    say(*sentences(found), *(f"See {page}" for page in pages))
    print_json(
        score={name: None if of.score is None else of.score.mean for name, of in found.methods.items()},
        pages=[str(page) for page in pages],
        runs=len(found.runs),
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def check(args: Namespace) -> None:
    """Raises `BadConfig` for numbers that give no comparison."""
    errors = [f"`--seeds` should be at least 1. Found {args.seeds}."] * (args.seeds < 1)
    errors += [f"`--folds` should be at least {FOLDS_MIN}. Found {args.folds}."] * (args.folds < FOLDS_MIN)
    errors += [f"`--epochs` should be at least 1. Found {args.epochs}."] * (args.epochs is not None and args.epochs < 1)
    errors += [f"`--settle-days` should be 0 or more. Found {args.settle_days:g}."] * (not args.settle_days >= 0)
    errors += mistakes_of(args.out)
    if errors:
        raise BadConfig(errors)


class Progress:
    """Says of each run how it went, and how many there are still to come."""

    def __init__(self, methods: int, args: Namespace) -> None:
        self._all, self._done = methods * args.folds * args.seeds, 0

    def __call__(self, run: Run) -> None:
        self._done += 1
        score = "none" if run.score is None else f"{run.score:.4f}"
        place = f"fold {run.fold}  seed {run.seed}  {run.method:11}"
        say(f"{self._done} of {self._all}  {place}  score {score}  {run.seconds:.1f} s of CPU")


def sentences(found: Findings) -> list[str]:
    """The main findings, for the terminal."""
    scores = [(name, of.score) for name, of in found.methods.items() if of.score is not None]
    said = [
        f"{name}: score {score.mean:.4f} ± {figure(score.seeds_sd)} over seeds, {figure(score.folds_sd)} over folds"
        for name, score in scores
    ]
    for one in found.differences:
        if one.figure != "gain":
            p = "without a p" if one.p is None else f"p = {one.p:.3g}"
            said.append(f"{one.task} {one.figure}: {one.mean:+.4f} against {one.other} ({p}, {one.runs} pairs)")
    return said


def command_of(args: Namespace) -> str:
    """The command that repeats this."""
    words = ["python", "-m", "training", "evaluate", Path(args.data).name]
    words += ["--seeds", str(args.seeds), "--folds", str(args.folds)]
    words += ["--settle-days", f"{args.settle_days:g}"] if args.settle_days else []
    words += [] if args.epochs is None else ["--epochs", str(args.epochs)]
    words += ["--methods", *args.methods] if args.methods else []
    return shlex.join(words)
