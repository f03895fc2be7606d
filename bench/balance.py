"""`python -m bench balance`: which way of balancing tasks learns best, and what a step of it costs.

The same network learns from the same rows by each way, on Census-Income and on the simulated shop, once for each seed.
What ranks them is the gain of every task (the share of the best constant's loss that is saved) on rows that neither
taught nor chose an epoch. Since a default may follow from it, the people who judge a seed of `bench census` are not
among the rows of that seed here. Seeds are the outer loop: a run that was ended can be told of by the seeds it has.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.balance_ranks import DEFAULT, Key, Row, Try, advised, rows_of
from bench.calibration import JUDGING, lived
from bench.census import MEASURED_BY as CENSUS_BY
from bench.census import PLAN, SHAPES
from bench.census_data import FILE, Part, cut, read_census
from bench.fraud_replay import digest_of
from contract.settings import ModelConfig, TrainingConfig, read_settings
from model.network import Network
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples
from training.data.folds import drop_unsettled
from training.data.split import assign_families, split_by_time
from training.trainer.evaluation import evaluate
from training.trainer.fit import fit
from training.trainer.learner import Learner, mixed_batches, to_batch
from training.trainer.loss_balancing import ALIASES

WARM, STEPS = 3, 30
MEASURED_BY: Final = (*CENSUS_BY, "bench/balance.py", "bench/calibration.py", "shop.toml", "features.toml")


class Source(msgspec.Struct, frozen=True):
    """A data set: the rows of each seed, and the network and plan that learn from them."""

    part: Callable[[int], Part]
    shape: ModelConfig
    plan: TrainingConfig


class Kept(msgspec.Struct, kw_only=True):
    """What is measured already, by "seed/data/name", and by which code on what."""

    digest: str
    tries: dict[str, Try] = {}


class Balances:
    """Measures one way after the other and keeps each figure as soon as it is there."""

    def __init__(self, *, sources: Mapping[str, Source], path: Path, digest: str) -> None:
        self.sources, self.path, self.kept = sources, path, Kept(digest=digest)
        if path.is_file() and (before := msgspec.json.decode(path.read_bytes(), type=Kept)).digest == digest:
            self.kept = before

    def rows(self, names: Sequence[str], seeds: int) -> dict[str, Row]:
        """Measure what is not measured yet, then rank."""
        keys = [(seed, data, name) for seed in range(seeds) for data in self.sources for name in names]
        return rows_of({key: self.one(key) for key in keys}, list(self.sources), names, seeds)

    def one(self, key: Key) -> Try:
        (seed, data, name), told = key, "/".join(map(str, key))
        if told not in self.kept.tries:
            self.kept.tries[told] = tried(self.sources[data], name, seed)
            aside = self.path.with_suffix(".part")
            aside.write_bytes(msgspec.json.encode(self.kept))
            aside.replace(self.path)
            print(f"{told}: {self.kept.tries[told]}", file=sys.stderr)
        return self.kept.tries[told]


def tried(source: Source, name: str, seed: int) -> Try:
    """Learn once by that name, and be judged."""
    began, part = time.process_time(), source.part(seed)
    plan = source.plan.model_copy(update={"seed": seed, "balance": name})
    network = fit(part.learning, source.shape, plan, ignore_epoch).network
    found = evaluate(network, part.judging.for_tasks(network.tasks))
    gain = {task: figures["gain"] for task, figures in found.items() if "gain" in figures}
    step_s = step_seconds(network, part.learning.for_tasks(network.tasks), plan)
    return Try(gain=gain, step_s=step_s, seconds=time.process_time() - began)


def step_seconds(network: Network, learning: Examples, plan: TrainingConfig) -> float:
    """The median CPU time of a step, without making its batch. The network goes on learning meanwhile."""
    learner, order, took = Learner(network=network, plan=plan), np.random.default_rng(plan.seed), list[float]()
    for rows, _ in zip(mixed_batches(assign_families(learning), plan.batch, order), range(WARM + STEPS), strict=False):
        batch, began = to_batch(learning, rows), time.process_time()
        learner.train_step(batch)
        took.append(time.process_time() - began)
    return float(np.median(took[WARM:] or took))


def main(words: Sequence[str]) -> int:
    """Measure what is asked for; 0: it was measured, 1: the data is not there."""
    arguments = parse(words)
    if "census" in arguments.sets and not (arguments.data / FILE).is_file():
        print(
            f"The data should be at {arguments.data / FILE}: set SHOPSTREAM_DATA or --data. Found none.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    arguments.kept.mkdir(parents=True, exist_ok=True)
    made_by = f"torch {torch.__version__} {arguments.days:g} {arguments.people} {arguments.items}"
    read = [arguments.data / FILE] if "census" in arguments.sets else []
    digest = f"{made_by} {digest_of(MEASURED_BY, *read)}"  # first: what is kept is of the code that was read
    sources = {data: SOURCES[data](arguments) for data in arguments.sets}
    balances = Balances(sources=sources, path=arguments.kept / "tries.json", digest=digest)
    show(balances.rows(arguments.rows, arguments.seeds), arguments.seeds, as_json=arguments.json)
    return 0


def census(arguments: argparse.Namespace) -> Source:
    """The people who do not judge a seed of the census bench, cut once more."""
    people = read_census(arguments.data)
    return Source(lambda seed: cut(cut(people, seed).learning, seed), SHAPES["mmoe"], PLAN)


def shop(arguments: argparse.Namespace) -> Source:
    """The shop's earlier days teach and the later ones judge, whatever the seed; network and plan are `shop.toml`'s."""
    settings, features = read_settings()
    shape, plan = read_configs(settings, features, {})
    examples = drop_unsettled(lived(arguments, settings, features), settings.feedback.purchase_window_s * 1_000)
    split = split_by_time(examples, JUDGING)
    part = Part(examples.take(split.training), examples.take(split.validation))
    return Source(lambda _: part, shape, plan)


SOURCES: Final = {"census": census, "shop": shop}


def show(rows: Mapping[str, Row], seeds: int, *, as_json: bool) -> None:
    if as_json:
        said = {"rows": rows, "seeds": seeds, "default": DEFAULT, "advised": advised(rows)}
        print(msgspec.json.encode(said).decode())
        return
    for name, row in rows.items():
        of = "   ".join(f"{data} {row.rank[data]:.2f} {1e3 * row.step_s[data]:.1f} ms" for data in row.rank)
        print(f"{name:12} mean rank {row.mean_rank:.2f}   {of}   p {row.p}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench balance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=5, help="how often each way learns from each data set")
    parser.add_argument(
        "--rows", nargs="+", default=list(ALIASES), help="these alone, by any name that `balance` takes"
    )
    parser.add_argument("--sets", nargs="+", default=list(SOURCES), choices=list(SOURCES), help="these data sets alone")
    parser.add_argument("--days", type=float, default=14, help="how long the simulated shop lives")
    parser.add_argument("--people", type=int, default=600)
    parser.add_argument("--items", type=int, default=400)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    kept = Path(tempfile.gettempdir()) / "shopstream-bench-balance"
    parser.add_argument("--kept", type=Path, default=kept, help="where the shop's examples and measured tries are kept")
    return parser.parse_args(words)
