"""`python -m training search`: hyper-parameter search; the best values as tables for `shop.toml`."""

import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import msgspec
import torch

from contract.features.declaration import FeatureSet
from contract.settings.reading import Settings
from training.analysis.hyperparameter_search import SPACE, HyperparameterSearch, SearchResult, TrialResult, check_space
from training.commands.fit import read_configs
from training.data.parquet import read_files, write_atomically
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.report.console import format_number, print_json, print_lines
from training.trainer.size_defaults import ADAPTED, adapt_configs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", type=Path, nargs="+", help="examples as Parquet")
    parser.add_argument("--trials", type=int, default=30, help="how many, including those in the file of --kept")
    parser.add_argument("--over", nargs="+", metavar="NAME", help="the names of [model] and [training] to search over")
    parser.add_argument("--epochs", type=int, help="passes over the data, instead of the setting")
    parser.add_argument("--kept", type=Path, help="a file to save trials to, and to continue from")
    parser.add_argument("--out", type=Path, help="where to write the best [model] and [training], as TOML")
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Run the trials, then print and write the best configuration; no model is kept."""
    started_s = time.monotonic()
    names = args.over or list(SPACE)
    check_space(names)
    model_config, config = read_configs(settings, features, {"epochs": args.epochs})
    torch.set_num_threads(config.threads)
    examples = read_files(args.data, features, settings.tasks, erasures=read_erasures(args, settings))
    model_config, config = adapt_configs(model_config, config, len(examples))
    search = HyperparameterSearch(
        examples=examples,
        model_config=model_config,
        config=config,
        names=names,
        journal_path=args.kept,
    )
    result = search.run(args.trials, lambda trial: print_lines(format_trial(trial)))
    tables = to_toml(result)
    print_lines(f"Best: {result.score:.4f}, declared: {format_number(result.declared)}.", tables)
    if args.out:
        write_atomically(args.out, tables.encode())
    print_json(
        score=result.score,
        declared=result.declared,
        trials=len(result.trials),
        ended_early=sum(trial.score is None for trial in result.trials),
        values=find_best_values(result),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def format_trial(trial: TrialResult) -> str:
    formatted = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in trial.values.items()}
    values = "  ".join(f"{name} {value}" for name, value in formatted.items())
    score = "ended early " if trial.score is None else f"score {trial.score:.4f}"
    return f"trial {trial.number}  {score}  {values}"


def find_best_values(result: SearchResult) -> dict[str, Any]:
    """The values of the best trial."""
    return next(trial.values for trial in result.trials if trial.score == result.score)


def to_toml(result: SearchResult) -> str:
    """The best configuration as the tables [model] and [training], without values that equal a fixed default."""
    parts = []
    for name, table in (("model", result.model_config), ("training", result.config)):
        default = type(table)()
        lines = [
            f"{key} = {msgspec.json.encode(value).decode()}"
            for key, value in table.model_dump().items()
            if value != getattr(default, key) or key in ADAPTED
        ]
        parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"
