"""`python -m bench calibration`: do probabilities say what happens, for each task, on the simulated shop?

A shop lives through its days; its events become examples by the code that serves, the network of `shop.toml` learns
from the earlier ones and calibrates itself within them, and the later ones judge it, all of them old enough for their
labels to be final. The calibration error of a model that is right about every probability is not 0: labels are drawn.
What that alone gives on as many rows stands beside each figure, so that too few rows are not taken for a fault.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from contract.errors import BadData
from contract.features.declaration import FeatureSet
from contract.settings import Settings, read_settings
from contract.tasks import Task
from demo.simulator.shop import ShopSimulator
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.arrays import Array
from training.data.examples import Examples, from_rows
from training.data.folds import drop_unsettled
from training.data.parquet import read_examples, write_examples
from training.data.split import split_by_time
from training.metrics.calibration import calibration_error, to_top_class
from training.replay.event_reader import HistoricEvent
from training.replay.replay import Replay
from training.trainer.fit import fit
from training.trainer.learner import predict

AIM: Final = 0.01
TEST_SHARE: Final = 0.4  # the latest share of each family of examples
DRAWS: Final = 20


class CalibrationRow(msgspec.Struct, frozen=True):
    """A task's calibration error over `rows` that judge, and what chance alone would make of it."""

    calibration_error: float
    of_chance: float
    rows: int


def main(argv: Sequence[str]) -> int:
    """Measure; 0: every task is within the aim, 1: some is not."""
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
    for sentence in (*find_missed_aims(rows), *fitted.left_out.values()):
        print(f"Missed: {sentence}", file=sys.stderr)
    print_rows(rows, len(examples), time.process_time() - started_s, as_json=arguments.json)
    return 1 if list(find_missed_aims(rows)) or fitted.left_out else 0


def load_or_simulate(arguments: argparse.Namespace, settings: Settings, features: FeatureSet) -> Examples:
    """The examples of the shop's days, made once and then kept beside the name of what they were made by."""
    name = f"shop-{arguments.days:g}-{arguments.people}-{arguments.items}-{features.digest}.parquet"
    path: Path = arguments.kept / name
    if path.is_file():
        return read_examples(path, features, settings.tasks)
    shop = ShopSimulator(5, users=arguments.people, items=arguments.items)
    replay = Replay(features=features, tasks=settings.tasks, feedback=settings.feedback)
    examples = from_rows(replay.run(simulate_events(shop, arguments.days)), features, settings.tasks)
    if not len(examples):
        raise BadData(f"{arguments.days:g} days of the shop should give examples. Found none.")
    write_examples(path, examples)
    return examples


def simulate_events(shop: ShopSimulator, days: float) -> Iterator[HistoricEvent]:
    """What the shop lived through, decoded as it would come."""
    for record in shop.simulate_history(days):
        if not isinstance(record.event, bytes):  # history has nothing malformed in it
            yield HistoricEvent(record.kind, record.event)


def evaluate_tasks(tasks: Sequence[Task], test: Examples, predictions: dict[str, Array]) -> dict[str, CalibrationRow]:
    """Of a task with classes: how sure the network is of the class that it chooses."""
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
    """The mean calibration error of probabilities (N,) that are right, on labels drawn by them."""
    rng = np.random.default_rng(0)
    return float(np.mean([calibration_error((rng.random(len(p)) < p).astype(np.float64), p) for _ in range(DRAWS)]))


def find_missed_aims(rows: dict[str, CalibrationRow]) -> Iterable[str]:
    for task, row in rows.items():
        if row.calibration_error > AIM:
            yield (
                f"The calibration error of `{task}` should be at most {AIM}. Found {row.calibration_error}, of which "
                f"chance makes {row.of_chance} with {row.rows} rows."
            )


def print_rows(rows: dict[str, CalibrationRow], examples: int, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"tasks": rows, "examples": examples, "seconds": round(seconds, 1)}).decode())
        return
    for name, row in rows.items():
        print(f"{name:10} {row.calibration_error:.4f}   by chance {row.of_chance:.4f}   {row.rows:9,} rows")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench calibration", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--days", type=float, default=40, help="how long the shop lives")
    parser.add_argument("--people", type=int, default=1_500)
    parser.add_argument("--items", type=int, default=2_500)
    parser.add_argument("--seed", type=int, help="of learning, in place of the settings' own")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-calibration"
    parser.add_argument("--kept", type=Path, default=cache_folder, help="where the examples are kept for the next time")
    return parser.parse_args(argv)
