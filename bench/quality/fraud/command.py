"""`python -m bench fraud`: fraud detection on the card payments of the Handbook, as the worker would do it in a stream.

Four consecutive weeks, each with what was known when its payments came: profiles by the worker's fold over all earlier
payments, labels seven days late, a model trained on days whose labels had arrived when the week began, and predictions
by its exported bundle. Compared with gradient-boosted trees on the same features, and with our network without profile
features. Results are kept, so an interrupted bench continues. Figures too good to be true fail the bench: they show
that labels leak into features.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bench.quality.fraud.dataset import FILE, read_payments
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
from bench.results.cache import ResultCache
from bench.results.digest import digest_inputs
from bench.results.report import print_json, print_missed, print_missing_data, print_progress
from contract.features.reading import read_features
from contract.units import DAY_MS
from testkit.checkout import ROOT

AIMS: Final = FraudFigures(average_precision=0.70, auc=0.876, card_precision_100=0.304)
LEAK_THRESHOLDS: Final = {"average_precision": 0.85, "auc": 0.93}  # above these, labels leak into features
CODE_PATHS: Final = (
    *BLOCK_CODE_PATHS,
    "bench/quality/fraud",
    "export",
    "model",
    "training",
    "worker/model",
    "worker/ops/metrics.py",
)
LIBRARIES: Final = ("torch", "lightgbm", "numpy", "onnxruntime")


class FraudBench:
    """Measures rows week by week and keeps each result at once."""

    def __init__(self, *, data: FraudData, cache: ResultCache[FraudFigures]) -> None:
        self.data, self.cache = data, cache

    def measure_row(self, name: str, method: Method, weeks: Sequence[str]) -> FraudFigures:
        return average_figures([self.measure(name, method, week) for week in weeks])

    def measure(self, name: str, method: Method, date: str) -> FraudFigures:
        key = f"{name}/{date}"

        def measure() -> FraudFigures:
            started_s, week = time.process_time(), split_week(self.data.payments, parse_day(date), HISTORY_DAYS)
            figures = evaluate_predictions(self.data.payments, week.test, method(self.data, week))
            print_progress(f"{key}: {figures}, {time.process_time() - started_s:.0f} s of CPU")
            return figures

        return self.cache.get_or_measure(key, measure)


def find_leaks(rows: Mapping[str, FraudFigures]) -> Iterable[str]:
    """Figures that can only come from a leak of labels, as sentences."""
    for name, row in rows.items():
        for figure, limit in LEAK_THRESHOLDS.items():
            if (value := getattr(row, figure)) > limit:
                yield f"{figure} of {name} should be at most {limit}, else labels leak. Found {value:.4f}."


def find_missed_aims(rows: Mapping[str, FraudFigures]) -> Iterable[str]:
    """The missed aims of our row, as sentences."""
    if "ours" not in rows:
        return
    for figure in FraudFigures.__struct_fields__:
        if (value := getattr(rows["ours"], figure)) < (aim := getattr(AIMS, figure)):
            yield f"{figure} of ours should reach {aim}. Found {value:.4f}."


def main(argv: Sequence[str]) -> int:
    """Measure the selected rows. 0: done; 1: the data is missing, or labels leak."""
    arguments = parse(argv)
    if not (arguments.data / FILE).is_file():
        print_missing_data(arguments.data / FILE)
        return 1
    torch.set_num_threads(1)
    digest = digest_inputs(CODE_PATHS, libraries=LIBRARIES, files=[arguments.data / FILE])
    cache = ResultCache(path=arguments.kept / "rows.json", digest=digest, result_type=FraudFigures)
    bench = FraudBench(data=load_data(arguments), cache=cache)
    rows = {name: bench.measure_row(name, METHODS[name], arguments.weeks) for name in arguments.rows or METHODS}
    print_missed(find_missed_aims(rows))
    leaks = list(find_leaks(rows))
    for sentence in leaks:
        print_progress(f"Leaked: {sentence}")
    print_rows(rows, len(arguments.weeks), as_json=arguments.json)
    return 1 if leaks else 0


def load_data(arguments: argparse.Namespace) -> FraudData:
    """The payments until the end of the last week, with the features of those that a week trains or tests on."""
    days = [parse_day(week) for week in arguments.weeks]
    payments = read_payments(arguments.data, (max(days) + WEEK_DAYS) * DAY_MS)
    first = int(np.searchsorted(payments.day, min(days) - DELAY_DAYS - HISTORY_DAYS))
    features = read_features(ROOT / "features.toml")
    blocks = load_or_replay(payments, features, first, arguments.data, arguments.kept / "blocks")
    return FraudData(payments, features, blocks, first)


def print_rows(rows: Mapping[str, FraudFigures], weeks: int, *, as_json: bool) -> None:
    rounded = {n: {f: round(getattr(row, f), 4) for f in FraudFigures.__struct_fields__} for n, row in rows.items()}
    if as_json:
        print_json({"rows": rounded, "weeks": weeks})
        return
    for name, figures in rounded.items():
        print(f"{name:24}" + "   ".join(f"{figure} {value:.4f}" for figure, value in figures.items()))


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fraud", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the rows as one line of JSON")
    parser.add_argument("--rows", nargs="+", choices=list(METHODS), help="measure only these rows")
    parser.add_argument("--weeks", nargs="+", default=list(TEST_WEEKS), help="first days of the test weeks")
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder with the datasets")
    cache_folder = Path(tempfile.gettempdir()) / "shopstream-bench-fraud"
    parser.add_argument("--kept", type=Path, default=cache_folder, help="the folder that keeps features and results")
    return parser.parse_args(argv)
