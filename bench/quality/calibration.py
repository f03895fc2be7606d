"""`python -m bench calibration`: calibration error of each task's probabilities on the simulated shop.

The shop's events become examples by the serving code; the network of `shop.toml` is trained and calibrated on the
earlier ones and evaluated on the later ones, all of them old enough for their labels to be final. Even perfect
probabilities have a calibration error above 0, since labels are random. The expected error of perfect probabilities on
the same number of rows is reported with each figure, so that a small sample is not mistaken for miscalibration.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.quality.simulated_shop import TEST_SHARE, add_shop_arguments, load_or_simulate
from bench.results.report import print_json, print_missed
from contract.arrays import Array
from contract.settings.reading import read_settings
from contract.tasks import Task
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples
from training.data.folds import drop_unsettled
from training.data.split import split_by_time
from training.metrics.calibration import calibration_error, to_top_class
from training.trainer.fit import fit
from training.trainer.learner import predict

AIM: Final = 0.01
DRAWS: Final = 20


class CalibrationRow(msgspec.Struct, frozen=True):
    """A task's calibration error over `rows` test rows; `of_chance`: that of perfect probabilities."""

    calibration_error: float
    of_chance: float
    rows: int


def main(argv: Sequence[str]) -> int:
    """Measure. 0: every task is within the aim; 1: one is not, or could not be learned."""
    arguments, started_s = parse(argv), time.process_time()
    settings, features = read_settings()
    shape, plan = read_configs(settings, features, {} if arguments.seed is None else {"seed": arguments.seed})
    torch.set_num_threads(plan.threads)
    examples = drop_unsettled(
        load_or_simulate(arguments, settings, features), settings.feedback.purchase_window_s * 1_000
    )
    split = split_by_time(examples, TEST_SHARE)
    fitted = fit(examples.take(split.training), shape, plan, ignore_epoch)
    test = examples.take(split.validation).for_tasks(fitted.network.tasks)
    rows = evaluate_tasks(fitted.network.tasks, test, predict(fitted.network, test))
    is_missed = print_missed([*find_missed_aims(rows), *fitted.left_out.values()])
    print_rows(rows, len(examples), time.process_time() - started_s, as_json=arguments.json)
    return 1 if is_missed else 0


def evaluate_tasks(tasks: Sequence[Task], test: Examples, predictions: dict[str, Array]) -> dict[str, CalibrationRow]:
    """Calibration of each classification task; of a multiclass task, of the probability of the predicted class."""
    rows = dict[str, CalibrationRow]()
    for task in tasks:
        if task.kind == "regression" or not (is_known := test.has_label(task)).any():
            continue
        y, p = test.labels[task.name][is_known], predictions[task.name][is_known].astype(np.float64)
        if task.kind == "multiclass":
            y, p = to_top_class(y, p)
        rows[task.name] = CalibrationRow(round(calibration_error(y, p), 5), round(estimate_chance_error(p), 5), len(y))
    return rows


def estimate_chance_error(p: Array) -> float:
    """The mean calibration error of probabilities (N,) on labels drawn from them."""
    rng = np.random.default_rng(0)
    return float(np.mean([calibration_error((rng.random(len(p)) < p).astype(np.float64), p) for _ in range(DRAWS)]))


def find_missed_aims(rows: dict[str, CalibrationRow]) -> Iterable[str]:
    for task, row in rows.items():
        if row.calibration_error > AIM:
            yield (
                f"The calibration error of `{task}` should be at most {AIM}. Found {row.calibration_error}, "
                f"where perfect probabilities have {row.of_chance} on {row.rows} rows."
            )


def print_rows(rows: dict[str, CalibrationRow], examples: int, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print_json({"tasks": rows, "examples": examples, "seconds": round(seconds, 1)})
        return
    for name, row in rows.items():
        print(f"{name:10} {row.calibration_error:.4f}   by chance {row.of_chance:.4f}   {row.rows:9,} rows")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench calibration", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    add_shop_arguments(parser, days=40, people=1_500, items=2_500)
    parser.add_argument("--seed", type=int, help="seed of the training, instead of the settings' own")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-calibration"
    parser.add_argument("--kept", type=Path, default=cache_folder, help="the folder that keeps the shop's examples")
    return parser.parse_args(argv)
