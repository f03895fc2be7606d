"""`python -m training search`: which shape and plan learn best, as tables for `shop.toml`."""

import time
from argparse import Namespace
from typing import Any

import msgspec
import torch

from contract.features import FeatureSet
from contract.settings import Settings
from training.commands.fit import declared
from training.pages import figure
from training.report import print_json, say
from training.search import SPACE, Found, Search, Tried, check_space
from training.table import read_together, write_whole


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Search by trials, then say and write what was best; no model is kept."""
    begun = time.monotonic()
    over = args.over or list(SPACE)
    check_space(over)
    shape, plan = declared(settings, features, {} if args.epochs is None else {"epochs": args.epochs})
    torch.set_num_threads(plan.threads)
    examples = read_together(args.data, features, settings.tasks)
    search = Search(examples=examples, shape=shape, plan=plan, over=over, kept=args.kept)
    found = search.run(args.trials, lambda one: say(sentence(one)))
    tables = toml_of(found)
    say(f"Best: {found.score:.4f}, where what is declared has {figure(found.declared)}.", tables)
    if args.out:
        write_whole(args.out, tables.encode())
    print_json(
        score=found.score,
        declared=found.declared,
        trials=len(found.trials),
        ended_early=sum(one.score is None for one in found.trials),
        values=best_of(found),
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def sentence(one: Tried) -> str:
    said = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in one.values.items()}
    values = "  ".join(f"{name} {value}" for name, value in said.items())
    score = "ended early " if one.score is None else f"score {one.score:.4f}"
    return f"trial {one.number}  {score}  {values}"


def best_of(found: Found) -> dict[str, Any]:
    """What the best trial drew."""
    return next(one.values for one in found.trials if one.score == found.score)


def toml_of(found: Found) -> str:
    """The best shape and plan as the tables [model] and [training], what has its default left out."""
    parts = []
    for name, table in (("model", found.shape), ("training", found.plan)):
        plain = type(table)()
        lines = [
            f"{key} = {msgspec.json.encode(value).decode()}"
            for key, value in msgspec.structs.asdict(table).items()
            if value != getattr(plain, key)
        ]
        parts.append("\n".join([f"[{name}]", *lines]))
    return "\n\n".join(parts) + "\n"
