"""`python -m bench balance`: which loss balancing method learns best, and the cost of its training step.

The same network is trained on the same rows by each method, on Census-Income and on the simulated shop, once per seed.
Methods are ranked by the gain of every task (the share of the best constant's loss that is saved) on test rows. Since
the default may be chosen by these ranks, the test rows of a seed of `bench census` are not used by that seed here.
Seeds are the outer loop, so an interrupted bench has complete results for its first seeds.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.quality.census.command import CODE_PATHS as CENSUS_CODE_PATHS
from bench.quality.census.command import PLAN, SHAPES
from bench.quality.census.dataset import FILE, DataSplit, read_census, split_examples
from bench.quality.loss_balancing.ranks import DEFAULT, BalanceRow, BalanceTrial, TrialKey, choose_default, rank_methods
from bench.quality.simulated_shop import SHOP_CODE_PATHS, TEST_SHARE, add_shop_arguments, load_or_simulate
from bench.results.cache import ResultCache
from bench.results.digest import digest_inputs
from bench.results.report import print_json, print_missing_data, print_progress
from contract.settings.model import ModelConfig
from contract.settings.reading import read_settings
from contract.settings.training import TrainingConfig
from model.network import Network
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples
from training.data.folds import drop_unsettled
from training.data.split import assign_families, split_by_time
from training.trainer.batching import mix_batches, to_batch
from training.trainer.evaluation import evaluate
from training.trainer.fit import fit
from training.trainer.learner import Learner
from training.trainer.loss_balancing import ALIASES

WARMUP_STEPS, STEPS = 3, 30
CODE_PATHS: Final = (
    *CENSUS_CODE_PATHS,
    *SHOP_CODE_PATHS,
    "bench/quality/loss_balancing",
    "export/ease.py",
    "export/interactions.py",
    "export/neighbours.py",
    "transport",
)


class BalanceDataset(msgspec.Struct, frozen=True):
    """A dataset: the rows of each seed, and the network and training configurations."""

    split: Callable[[int], DataSplit]
    shape: ModelConfig
    plan: TrainingConfig


class BalanceBench:
    """Measures one method after the other and keeps each result at once."""

    def __init__(self, *, datasets: Mapping[str, BalanceDataset], cache: ResultCache[BalanceTrial]) -> None:
        self.datasets, self.cache = datasets, cache

    def measure_rows(self, names: Sequence[str], seeds: int) -> dict[str, BalanceRow]:
        """Measure what is missing, then rank."""
        keys = [(seed, data, name) for seed in range(seeds) for data in self.datasets for name in names]
        return rank_methods({key: self.measure(key) for key in keys}, list(self.datasets), names, seeds)

    def measure(self, key: TrialKey) -> BalanceTrial:
        seed, data, name = key
        cache_key = f"{seed}/{data}/{name}"

        def measure() -> BalanceTrial:
            trial = fit_and_evaluate(self.datasets[data], name, seed)
            print_progress(f"{cache_key}: {trial}")
            return trial

        return self.cache.get_or_measure(cache_key, measure)


def fit_and_evaluate(dataset: BalanceDataset, name: str, seed: int) -> BalanceTrial:
    """Train once with the method `name`, and evaluate."""
    started_s, split = time.process_time(), dataset.split(seed)
    plan = dataset.plan.model_copy(update={"seed": seed, "balance": name})
    network = fit(split.train, dataset.shape, plan, ignore_epoch).network
    figures_by_task = evaluate(network, split.test.for_tasks(network.tasks))
    gain = {task: figures["gain"] for task, figures in figures_by_task.items() if "gain" in figures}
    step_s = measure_step_seconds(network, split.train.for_tasks(network.tasks), plan)
    return BalanceTrial(gain=gain, step_s=step_s, seconds=time.process_time() - started_s)


def measure_step_seconds(network: Network, train: Examples, plan: TrainingConfig) -> float:
    """The median CPU time of a training step, without building its batch; trains the network further."""
    learner = Learner(network=network, config=plan)
    order = np.random.default_rng(plan.seed)
    durations_s = list[float]()
    for rows, _ in zip(
        mix_batches(assign_families(train), plan.batch, order), range(WARMUP_STEPS + STEPS), strict=False
    ):
        batch, started_s = to_batch(train, rows), time.process_time()
        learner.train_step(batch)
        durations_s.append(time.process_time() - started_s)
    return float(np.median(durations_s[WARMUP_STEPS:] or durations_s))


def main(argv: Sequence[str]) -> int:
    """Measure the selected methods. 0: done; 1: the data is missing."""
    arguments = parse(argv)
    if "census" in arguments.sets and not (arguments.data / FILE).is_file():
        print_missing_data(arguments.data / FILE)
        return 1
    torch.set_num_threads(1)
    input_files = [arguments.data / FILE] if "census" in arguments.sets else []
    code_digest = digest_inputs(CODE_PATHS, libraries=("torch", "numpy"), files=input_files)
    digest = f"{code_digest} {arguments.days:g} {arguments.people} {arguments.items}"
    cache = ResultCache(path=arguments.kept / "tries.json", digest=digest, result_type=BalanceTrial)
    datasets = {data: DATASETS[data](arguments) for data in arguments.sets}
    bench = BalanceBench(datasets=datasets, cache=cache)
    print_rows(bench.measure_rows(arguments.rows, arguments.seeds), arguments.seeds, as_json=arguments.json)
    return 0


def load_census(arguments: argparse.Namespace) -> BalanceDataset:
    """The rows outside the census bench's test set of the same seed, split once more."""
    people = read_census(arguments.data)
    return BalanceDataset(lambda seed: split_examples(split_examples(people, seed).train, seed), SHAPES["mmoe"], PLAN)


def load_shop(arguments: argparse.Namespace) -> BalanceDataset:
    """The shop's earlier days for training, the later ones for the test, for every seed; configured by `shop.toml`."""
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
        print_json(report)
        return
    for name, row in rows.items():
        columns = "   ".join(f"{data} {row.rank[data]:.2f} {1e3 * row.step_s[data]:.1f} ms" for data in row.rank)
        print(f"{name:12} mean rank {row.mean_rank:.2f}   {columns}   p {row.p}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench balance", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as one line of JSON")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each method on each dataset")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=list(ALIASES),
        help="only these methods, by any name that `balance` accepts",
    )
    parser.add_argument(
        "--sets", nargs="+", default=list(DATASETS), choices=list(DATASETS), help="use only these datasets"
    )
    add_shop_arguments(parser, days=14, people=600, items=400)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder with the datasets")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-balance"
    parser.add_argument(
        "--kept", type=Path, default=cache_folder, help="the folder that keeps the shop's examples and the results"
    )
    return parser.parse_args(argv)
