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
from msgspec.structs import replace

from bench.quality.calibration import TEST_SHARE, load_or_simulate
from bench.quality.census.command import CODE_PATHS as CENSUS_CODE_PATHS
from bench.quality.census.command import PLAN, SHAPES
from bench.quality.census.dataset import FILE, DataSplit, read_census, split_examples
from bench.quality.loss_balancing.ranks import DEFAULT, BalanceRow, BalanceTrial, TrialKey, choose_default, rank_methods
from bench.results.digest import digest_inputs
from contract.settings import read_settings
from model.config import ModelConfig
from model.network import Network
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples
from training.data.folds import drop_unsettled
from training.data.split import assign_families, split_by_time
from training.trainer.config import TrainingConfig
from training.trainer.evaluation import evaluate
from training.trainer.fit import fit
from training.trainer.learner import Learner, mixed_batches, to_batch
from training.trainer.loss_balancing import ALIASES

WARMUP_STEPS, STEPS = 3, 30
CODE_PATHS: Final = (
    *CENSUS_CODE_PATHS,
    "bench/quality/loss_balancing/command.py",
    "bench/quality/calibration.py",
    "shop.toml",
    "features.toml",
)


class BalanceDataset(msgspec.Struct, frozen=True):
    """A data set: the rows of each seed, and the network and plan that learn from them."""

    split: Callable[[int], DataSplit]
    shape: ModelConfig
    plan: TrainingConfig


class BalanceCache(msgspec.Struct, kw_only=True):
    """What is measured already, by "seed/data/name", and by which code on what."""

    digest: str
    tries: dict[str, BalanceTrial] = {}


class BalanceBench:
    """Measures one way after the other and keeps each figure as soon as it is there."""

    def __init__(self, *, datasets: Mapping[str, BalanceDataset], path: Path, digest: str) -> None:
        self.datasets, self.path, self.cache = datasets, path, BalanceCache(digest=digest)
        if path.is_file() and (stored := msgspec.json.decode(path.read_bytes(), type=BalanceCache)).digest == digest:
            self.cache = stored

    def measure_rows(self, names: Sequence[str], seeds: int) -> dict[str, BalanceRow]:
        """Measure what is not measured yet, then rank."""
        keys = [(seed, data, name) for seed in range(seeds) for data in self.datasets for name in names]
        return rank_methods({key: self.measure(key) for key in keys}, list(self.datasets), names, seeds)

    def measure(self, key: TrialKey) -> BalanceTrial:
        (seed, data, name), cache_key = key, "/".join(map(str, key))
        if cache_key not in self.cache.tries:
            self.cache.tries[cache_key] = fit_and_evaluate(self.datasets[data], name, seed)
            part_path = self.path.with_suffix(".part")
            part_path.write_bytes(msgspec.json.encode(self.cache))
            part_path.replace(self.path)
            print(f"{cache_key}: {self.cache.tries[cache_key]}", file=sys.stderr)
        return self.cache.tries[cache_key]


def fit_and_evaluate(dataset: BalanceDataset, name: str, seed: int) -> BalanceTrial:
    """Learn once by that name, and be judged."""
    started_s, split = time.process_time(), dataset.split(seed)
    plan = replace(dataset.plan, seed=seed, balance=name)
    network = fit(split.train, dataset.shape, plan, ignore_epoch).network
    figures_by_task = evaluate(network, split.test.for_tasks(network.tasks))
    gain = {task: figures["gain"] for task, figures in figures_by_task.items() if "gain" in figures}
    step_s = measure_step_seconds(network, split.train.for_tasks(network.tasks), plan)
    return BalanceTrial(gain=gain, step_s=step_s, seconds=time.process_time() - started_s)


def measure_step_seconds(network: Network, train: Examples, plan: TrainingConfig) -> float:
    """The median CPU time of a step, without making its batch. The network goes on learning meanwhile."""
    learner, order, durations_s = Learner(network=network, plan=plan), np.random.default_rng(plan.seed), list[float]()
    for rows, _ in zip(
        mixed_batches(assign_families(train), plan.batch, order), range(WARMUP_STEPS + STEPS), strict=False
    ):
        batch, started_s = to_batch(train, rows), time.process_time()
        learner.train_step(batch)
        durations_s.append(time.process_time() - started_s)
    return float(np.median(durations_s[WARMUP_STEPS:] or durations_s))


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for; 0: it was measured, 1: the data is not there."""
    arguments = parse(argv)
    if "census" in arguments.sets and not (arguments.data / FILE).is_file():
        print(
            f"The data should be at {arguments.data / FILE}: set SHOPSTREAM_DATA or --data. Found none.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    arguments.kept.mkdir(parents=True, exist_ok=True)
    made_by = f"torch {torch.__version__} {arguments.days:g} {arguments.people} {arguments.items}"
    input_files = [arguments.data / FILE] if "census" in arguments.sets else []
    digest = (
        f"{made_by} {digest_inputs(CODE_PATHS, files=input_files)}"  # first: what is kept is of the code that was read
    )
    datasets = {data: DATASETS[data](arguments) for data in arguments.sets}
    bench = BalanceBench(datasets=datasets, path=arguments.kept / "tries.json", digest=digest)
    print_rows(bench.measure_rows(arguments.rows, arguments.seeds), arguments.seeds, as_json=arguments.json)
    return 0


def load_census(arguments: argparse.Namespace) -> BalanceDataset:
    """The people who do not judge a seed of the census bench, cut once more."""
    people = read_census(arguments.data)
    return BalanceDataset(lambda seed: split_examples(split_examples(people, seed).train, seed), SHAPES["mmoe"], PLAN)


def load_shop(arguments: argparse.Namespace) -> BalanceDataset:
    """The shop's earlier days teach and the later ones judge, whatever the seed; network and plan are `shop.toml`'s."""
    settings, features = read_settings()
    shape, plan = read_configs(settings, features, {})
    examples = drop_unsettled(
        load_or_simulate(arguments, settings, features), settings.feedback.purchase_window_s * 1_000
    )
    split = split_by_time(examples, TEST_SHARE)
    data = DataSplit(examples.take(split.training), examples.take(split.validation))
    return BalanceDataset(lambda _: data, shape, plan)


DATASETS: Final = {"census": load_census, "shop": load_shop}


def print_rows(rows: Mapping[str, BalanceRow], seeds: int, *, as_json: bool) -> None:
    if as_json:
        report = {"rows": rows, "seeds": seeds, "default": DEFAULT, "advised": choose_default(rows)}
        print(msgspec.json.encode(report).decode())
        return
    for name, row in rows.items():
        columns = "   ".join(f"{data} {row.rank[data]:.2f} {1e3 * row.step_s[data]:.1f} ms" for data in row.rank)
        print(f"{name:12} mean rank {row.mean_rank:.2f}   {columns}   p {row.p}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench balance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=5, help="how often each way learns from each data set")
    parser.add_argument(
        "--rows", nargs="+", default=list(ALIASES), help="these alone, by any name that `balance` takes"
    )
    parser.add_argument(
        "--sets", nargs="+", default=list(DATASETS), choices=list(DATASETS), help="these data sets alone"
    )
    parser.add_argument("--days", type=float, default=14, help="how long the simulated shop lives")
    parser.add_argument("--people", type=int, default=600)
    parser.add_argument("--items", type=int, default=400)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-balance"
    parser.add_argument(
        "--kept", type=Path, default=cache_folder, help="where the shop's examples and measured tries are kept"
    )
    return parser.parse_args(argv)
