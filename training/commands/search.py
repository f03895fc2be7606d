"""`python -m training search`: which shape and plan learn best, as tables for `shop.toml`."""

import time
from argparse import Namespace
from typing import Any

import msgspec
import torch

from contract.features.declaration import FeatureSet
from contract.settings import Settings
from training.analysis.hyperparameter_search import SPACE, HyperparameterSearch, SearchResult, TrialResult, check_space
from training.commands.fit import read_configs
from training.data.parquet import read_files, write_atomically
from training.report.console import print_json, print_lines
from training.report.pages import format_number


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Search by trials, then say and write what was best; no model is kept."""
    started_s = time.monotonic()
    names = args.over or list(SPACE)
    check_space(names)
    shape, plan = read_configs(settings, features, {} if args.epochs is None else {"epochs": args.epochs})
    torch.set_num_threads(plan.threads)
    examples = read_files(args.data, features, settings.tasks)
    search = HyperparameterSearch(examples=examples, shape=shape, plan=plan, names=names, journal_path=args.kept)
    result = search.run(args.trials, lambda trial: print_lines(format_trial(trial)))
    tables = to_toml(result)
    print_lines(f"Best: {result.score:.4f}, where what is declared has {format_number(result.declared)}.", tables)
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
    """What the best trial drew."""
    return next(trial.values for trial in result.trials if trial.score == result.score)


def to_toml(result: SearchResult) -> str:
    """The best shape and plan as the tables [model] and [training], what has its default left out."""
    parts = []
    for name, table in (("model", result.shape), ("training", result.plan)):
        default = type(table)()
        lines = [
            f"{key} = {msgspec.json.encode(value).decode()}"
            for key, value in table.model_dump().items()
            if value != getattr(default, key)
        ]
        parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"
