"""`python -m bench fraud`: frauds among the card payments of the Handbook, told as the worker would while they stream.

Four weeks after one another, each by what could be known when its payments came: profiles by the worker's fold over
all payments before, truths seven days late, a model of days that were judged when the week began, and its exported
bundle to answer. Beside it gradient-boosted trees on the same features, and our network without what profiles know. A
row that is measured is kept, so a run that was ended goes on where it was. Figures too good to be true end the bench as
failed: a truth has reached a feature before it came.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.quality.fraud.dataset import DAY_MS, FILE, read_payments
from bench.quality.fraud.features import BLOCK_CODE_PATHS, load_or_replay
from bench.quality.fraud.methods import HISTORY_DAYS, METHODS, FraudData, Method
from bench.quality.fraud.protocol import (
    DELAY_DAYS,
    TEST_WEEKS,
    WEEK_DAYS,
    FraudFigures,
    average_figures,
    evaluate_predictions,
    parse_day,
    split_week,
)
from bench.results.digest import digest_inputs
from contract.features.declaration import read_features
from testkit.checkout import ROOT

AIMS: Final = FraudFigures(average_precision=0.70, auc=0.876, card_precision_100=0.304)
LEAK_THRESHOLDS: Final = {"average_precision": 0.85, "auc": 0.93}  # beyond this, truths were read that had not come
CODE_PATHS: Final = (
    *BLOCK_CODE_PATHS,
    "model",
    "training",
    "export",
    "worker/model/onnx_model.py",
    "bench/quality/fraud/protocol.py",
)
LIBRARIES: Final = ("torch", "lightgbm", "numpy", "onnxruntime")
METHOD_CODE_PATHS: Final = ("bench/quality/fraud/methods.py", "bench/quality/fraud/command.py")


class FraudCache(msgspec.Struct, kw_only=True):
    """What is measured already, by row and week, and by which code on which data."""

    digest: str
    weeks: dict[str, FraudFigures] = {}


class FraudBench:
    """Measures rows one week after the other and keeps the figures of each as soon as they are there."""

    def __init__(self, *, data: FraudData, path: Path, digest: str) -> None:
        self.data, self.path, self.cache = data, path, FraudCache(digest=digest)
        if path.is_file() and (stored := msgspec.json.decode(path.read_bytes(), type=FraudCache)).digest == digest:
            self.cache = stored

    def measure_row(self, name: str, method: Method, weeks: Sequence[str]) -> FraudFigures:
        return average_figures([self.measure(name, method, week) for week in weeks])

    def measure(self, name: str, method: Method, date: str) -> FraudFigures:
        key = f"{name}/{date}"
        if key not in self.cache.weeks:
            started_s, week = time.process_time(), split_week(self.data.payments, parse_day(date), HISTORY_DAYS)
            figures = evaluate_predictions(self.data.payments, week.test, method(self.data, week))
            self.cache.weeks[key] = figures
            part_path = self.path.with_suffix(".part")
            part_path.write_bytes(msgspec.json.encode(self.cache))
            part_path.replace(self.path)
            print(f"{key}: {figures}, {time.process_time() - started_s:.0f} s of CPU", file=sys.stderr)
        return self.cache.weeks[key]


def find_leaks(rows: Mapping[str, FraudFigures]) -> Iterable[str]:
    """Why these figures cannot be true, as sentences."""
    for name, row in rows.items():
        for figure, limit in LEAK_THRESHOLDS.items():
            if (value := getattr(row, figure)) > limit:
                yield f"{figure} of {name} should be at most {limit}, or truths leak. Found {value:.4f}."


def find_missed_aims(rows: Mapping[str, FraudFigures]) -> Iterable[str]:
    """The aims that our row does not reach, as sentences."""
    for figure in FraudFigures.__struct_fields__ if "ours" in rows else ():
        if (value := getattr(rows["ours"], figure)) < (aim := getattr(AIMS, figure)):
            yield f"{figure} of ours should reach {aim}. Found {value:.4f}."


def main(argv: Sequence[str]) -> int:
    """Measure what is asked for; 0: it was measured, 1: the data is not there, or a truth leaks."""
    arguments = parse(argv)
    if not (arguments.data / FILE).is_file():
        print(
            f"The data should be at {arguments.data / FILE}: set SHOPSTREAM_DATA or --data. Found none.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    digest = digest_bench(arguments.data)  # first: what is kept is of the code that was read
    bench = FraudBench(data=load_data(arguments), path=arguments.kept / "rows.json", digest=digest)
    rows = {name: bench.measure_row(name, METHODS[name], arguments.weeks) for name in arguments.rows or METHODS}
    for sentence in find_missed_aims(rows):
        print(f"Missed: {sentence}", file=sys.stderr)
    leaks = list(find_leaks(rows))
    for sentence in leaks:
        print(f"Leaked: {sentence}", file=sys.stderr)
    print_rows(rows, len(arguments.weeks), as_json=arguments.json)
    return 1 if leaks else 0


def load_data(arguments: argparse.Namespace) -> FraudData:
    """The payments until the last week ends, and what profiles knew of those that some week learns from or judges."""
    days = [parse_day(week) for week in arguments.weeks]
    payments = read_payments(arguments.data, (max(days) + WEEK_DAYS) * DAY_MS)
    first = int(np.searchsorted(payments.day, min(days) - DELAY_DAYS - HISTORY_DAYS))
    features = read_features(ROOT / "features.toml")
    return FraudData(
        payments, features, load_or_replay(payments, features, first, arguments.data, arguments.kept / "blocks"), first
    )


def digest_bench(data_folder: Path) -> str:
    """Of the code, the libraries and the data that measure."""
    return digest_inputs((*CODE_PATHS, *METHOD_CODE_PATHS), libraries=LIBRARIES, files=[data_folder / FILE])


def print_rows(rows: Mapping[str, FraudFigures], weeks: int, *, as_json: bool) -> None:
    rounded = {n: {f: round(getattr(row, f), 4) for f in FraudFigures.__struct_fields__} for n, row in rows.items()}
    if as_json:
        print(msgspec.json.encode({"rows": rounded, "weeks": weeks}).decode())
        return
    for name, figures in rounded.items():
        print(f"{name:24}" + "   ".join(f"{figure} {value:.4f}" for figure, value in figures.items()))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fraud", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rows", nargs="+", choices=list(METHODS), help="these rows alone")
    parser.add_argument("--weeks", nargs="+", default=list(TEST_WEEKS), help="first days of the weeks that judge")
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-fraud"
    parser.add_argument(
        "--kept", type=Path, default=cache_folder, help="where what profiles knew and measured rows are kept"
    )
    return parser.parse_args(argv)
