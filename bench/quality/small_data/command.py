"""`python -m bench small-data`: stock settings on tables of 40,000 rows, compared with LightGBM on the same features.

The latest fifth of each table evaluates (a random fifth without times); each seed has another sample of the table.
`ours` has the defaults that suit the number of rows, `fixed` those of many rows; nothing is tuned to a table. Results
are kept, so an interrupted bench continues.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.quality.small_data.datasets import DATASETS, find_missing
from bench.results.cache import ResultCache
from bench.results.digest import digest_inputs
from bench.results.report import print_json, print_missed, print_missing_data, print_progress
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from training.analysis.baselines import Method, multi_task_network
from training.analysis.lightgbm_baseline import lightgbm_trees
from training.data.examples import Examples
from training.metrics.losses import constant_loss, log_loss
from training.metrics.ranking import auc, average_precision
from training.trainer.size_defaults import adapt_configs

TEST_SHARE: Final = 0.2
CODE_PATHS: Final = ("contract", "model", "training", "bench/quality/small_data", "bench/quality/census/dataset.py")
LIBRARIES: Final = ("torch", "lightgbm", "numpy")
OURS, FIXED, TREES = "ours", "fixed", "LightGBM"


class SmallDataTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one table with one seed. `gain`: see `training.trainer.evaluation`; CPU seconds."""

    auc: float
    average_precision: float
    gain: float
    seconds: float


class SmallDataRow(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and standard deviation of each figure over seeds; `ahead`: of LightGBM in AUC, by seed."""

    auc: tuple[float, float]
    average_precision: tuple[float, float]
    gain: tuple[float, float]
    seconds: float
    ahead: list[float]


def build_methods(rows: int) -> dict[str, Method]:
    """The methods for that number of training rows."""
    model_config, config = ModelConfig(), TrainingConfig()
    return {
        OURS: multi_task_network(*adapt_configs(model_config, config, rows)),
        FIXED: multi_task_network(model_config, config),
        TREES: lightgbm_trees(config),
    }


def split_latest(examples: Examples) -> tuple[Examples, Examples]:
    """The training part, and the latest fifth: examples are sorted by time."""
    cut = round(len(examples) * (1 - TEST_SHARE))
    return examples.take(np.arange(cut)), examples.take(np.arange(cut, len(examples)))


def run_trial(name: str, examples: Examples, seed: int) -> SmallDataTrial:
    training, test = split_latest(examples)
    (task,) = examples.tasks
    started_s = time.process_time()
    p = build_methods(len(training))[name](training, test, seed)[task.name]
    y = test.labels[task.name]
    return SmallDataTrial(
        auc=auc(y, p),
        average_precision=average_precision(y > 0, p),
        gain=1 - log_loss(y, p) / constant_loss(task, y),
        seconds=time.process_time() - started_s,
    )


def summarize(trials: Mapping[str, list[SmallDataTrial]]) -> dict[str, SmallDataRow]:
    """A row for each method."""

    def spread(values: list[float]) -> tuple[float, float]:
        return round(float(np.mean(values)), 4), round(float(np.std(values)), 4)

    trees = trials.get(TREES, [])
    return {
        name: SmallDataRow(
            auc=spread([trial.auc for trial in runs]),
            average_precision=spread([trial.average_precision for trial in runs]),
            gain=spread([trial.gain for trial in runs]),
            seconds=round(float(np.mean([trial.seconds for trial in runs])), 1),
            ahead=[round(run.auc - other.auc, 4) for run, other in zip(runs, trees, strict=False)],
        )
        for name, runs in trials.items()
    }


def find_missed_aims(rows: Mapping[str, Mapping[str, SmallDataRow]]) -> Iterable[str]:
    """The tables on which stock settings are behind LightGBM by more than the noise of seeds and samples."""
    for table, by_method in rows.items():
        ahead = by_method[OURS].ahead if OURS in by_method else []
        if ahead and np.mean(ahead) + np.std(ahead) < 0:
            yield f"ours should be level with LightGBM on {table}. Found an AUC {-np.mean(ahead):.4f} lower."


def main(argv: Sequence[str]) -> int:
    """Measure the selected tables. 0: done; 1: the data is missing."""
    arguments = parse(argv)
    files = [arguments.data / file for name in arguments.tables for file in [DATASETS[name].file]]
    if (missing := find_missing(files)) is not None:
        print_missing_data(missing)
        return 1
    torch.set_num_threads(1)
    digest = digest_inputs(CODE_PATHS, libraries=LIBRARIES, files=files)
    cache = ResultCache(path=arguments.kept, digest=digest, result_type=SmallDataTrial)
    rows = {name: measure_table(name, arguments, cache) for name in arguments.tables}
    print_missed(find_missed_aims(rows))
    if arguments.json:
        print_json({"tables": rows})
        return 0
    for table, by_method in rows.items():
        for name, row in by_method.items():
            figures = f"AUC {row.auc[0]:.4f} ± {row.auc[1]:.4f}   gain {row.gain[0]:.4f}   {row.seconds} s"
            print(f"{table:10} {name:10} {figures}")
    return 0


def measure_table(
    table: str, arguments: argparse.Namespace, cache: ResultCache[SmallDataTrial]
) -> dict[str, SmallDataRow]:
    def measure(name: str, seed: int) -> SmallDataTrial:
        trial = run_trial(name, DATASETS[table].read(arguments.data, seed), seed)
        print_progress(f"{table}, {name}, seed {seed}: {trial}")
        return trial

    return summarize(
        {
            name: [
                cache.get_or_measure(f"{table}/{name}/{seed}", lambda name=name, seed=seed: measure(name, seed))  # type: ignore[misc]
                for seed in range(arguments.seeds)
            ]
            for name in arguments.methods
        }
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench small-data", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as one line of JSON")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each method")
    parser.add_argument(
        "--tables", nargs="+", choices=[*DATASETS], default=[*DATASETS], help="measure only these tables"
    )
    methods = (OURS, FIXED, TREES)
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="measure only these methods")
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder with the datasets")
    cache_path = Path(tempfile.gettempdir()) / "shopstream-bench-small-data.json"
    parser.add_argument("--kept", type=Path, default=cache_path, help="the file that keeps results")
    return parser.parse_args(argv)
