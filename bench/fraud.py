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
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from bench.fraud_replay import MADE_BY, ROOT, digest_of, kept
from bench.fraud_rows import HISTORY_DAYS, ROWS, Known, Method
from bench.fraud_stream import DAY_MS, FILE, read_payments
from bench.fraud_weeks import DELAY_DAYS, TEST_WEEKS, WEEK_DAYS, Figures, day_of, figures_of, mean_of, week_of
from contract.features.declaration import read_features

AIMS: Final = Figures(average_precision=0.70, auc=0.876, card_precision_100=0.304)
LEAKS: Final = {"average_precision": 0.85, "auc": 0.93}  # beyond this, truths were read that had not come
MEASURED_BY: Final = (*MADE_BY, "model", "training", "export", "worker/model/onnx_model.py", "bench/fraud_weeks.py")
LAST_BY: Final = ("bench/fraud_rows.py", "bench/fraud.py")


class Kept(msgspec.Struct, kw_only=True):
    """What is measured already, by row and week, and by which code on which data."""

    digest: str
    weeks: dict[str, Figures] = {}


class Fraud:
    """Measures rows one week after the other and keeps the figures of each as soon as they are there."""

    def __init__(self, *, known: Known, path: Path, digest: str) -> None:
        self.known, self.path, self.kept = known, path, Kept(digest=digest)
        if path.is_file() and (before := msgspec.json.decode(path.read_bytes(), type=Kept)).digest == digest:
            self.kept = before

    def row(self, name: str, method: Method, weeks: Sequence[str]) -> Figures:
        return mean_of([self.one(name, method, week) for week in weeks])

    def one(self, name: str, method: Method, date: str) -> Figures:
        key = f"{name}/{date}"
        if key not in self.kept.weeks:
            began, week = time.process_time(), week_of(self.known.payments, day_of(date), HISTORY_DAYS)
            found = figures_of(self.known.payments, week.judging, method(self.known, week))
            self.kept.weeks[key] = found
            aside = self.path.with_suffix(".part")
            aside.write_bytes(msgspec.json.encode(self.kept))
            aside.replace(self.path)
            print(f"{key}: {found}, {time.process_time() - began:.0f} s of CPU", file=sys.stderr)
        return self.kept.weeks[key]


def leaked(rows: Mapping[str, Figures]) -> Iterable[str]:
    """Why these figures cannot be true, as sentences."""
    for name, row in rows.items():
        for figure, most in LEAKS.items():
            if (found := getattr(row, figure)) > most:
                yield f"{figure} of {name} should be at most {most}, or truths leak. Found {found:.4f}."


def missed(rows: Mapping[str, Figures]) -> Iterable[str]:
    """The aims that our row does not reach, as sentences."""
    for figure in Figures.__struct_fields__ if "ours" in rows else ():
        if (found := getattr(rows["ours"], figure)) < (aim := getattr(AIMS, figure)):
            yield f"{figure} of ours should reach {aim}. Found {found:.4f}."


def main(words: Sequence[str]) -> int:
    """Measure what is asked for; 0: it was measured, 1: the data is not there, or a truth leaks."""
    arguments = parse(words)
    if not (arguments.data / FILE).is_file():
        print(
            f"The data should be at {arguments.data / FILE}: set SHOPSTREAM_DATA or --data. Found none.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    digest = code_digest(arguments.data)  # first: what is kept is of the code that was read
    fraud = Fraud(known=what_is_known(arguments), path=arguments.kept / "rows.json", digest=digest)
    rows = {name: fraud.row(name, ROWS[name], arguments.weeks) for name in arguments.rows or ROWS}
    for sentence in missed(rows):
        print(f"Missed: {sentence}", file=sys.stderr)
    leaks = list(leaked(rows))
    for sentence in leaks:
        print(f"Leaked: {sentence}", file=sys.stderr)
    show(rows, len(arguments.weeks), as_json=arguments.json)
    return 1 if leaks else 0


def what_is_known(arguments: argparse.Namespace) -> Known:
    """The payments until the last week ends, and what profiles knew of those that some week learns from or judges."""
    days = [day_of(week) for week in arguments.weeks]
    payments = read_payments(arguments.data, (max(days) + WEEK_DAYS) * DAY_MS)
    first = int(np.searchsorted(payments.day, min(days) - DELAY_DAYS - HISTORY_DAYS))
    features = read_features(ROOT / "features.toml")
    return Known(payments, features, kept(payments, features, first, arguments.data, arguments.kept / "blocks"), first)


def code_digest(data: Path) -> str:
    """Of the code, the libraries and the data that measure."""
    libraries = " ".join(f"{name} {version(name)}" for name in ("torch", "lightgbm", "numpy", "onnxruntime"))
    return f"{libraries} {digest_of((*MEASURED_BY, *LAST_BY), data / FILE)}"


def show(rows: Mapping[str, Figures], weeks: int, *, as_json: bool) -> None:
    rounded = {n: {f: round(getattr(row, f), 4) for f in Figures.__struct_fields__} for n, row in rows.items()}
    if as_json:
        print(msgspec.json.encode({"rows": rounded, "weeks": weeks}).decode())
        return
    for name, figures in rounded.items():
        print(f"{name:24}" + "   ".join(f"{figure} {value:.4f}" for figure, value in figures.items()))


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench fraud", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), help="these rows alone")
    parser.add_argument("--weeks", nargs="+", default=list(TEST_WEEKS), help="first days of the weeks that judge")
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    folder = Path(tempfile.gettempdir()) / "shopstream-bench-fraud"
    parser.add_argument("--kept", type=Path, default=folder, help="where what profiles knew and measured rows are kept")
    return parser.parse_args(words)
