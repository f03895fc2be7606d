"""`python -m bench census`: the multi-task network on a table everybody has, beside single-task nets and LightGBM.

AUC of income over 50,000 and of never having married, mean and standard deviation over seeds; each seed cuts the
table anew (`bench.census_data`). Our rows go through the shop's own statistics, network and fitting; shapes and plans
were chosen by validation. A row that is measured is kept, so a run that was ended goes on where it was; what was
measured by other code is measured again.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import lightgbm
import msgspec
import numpy as np
import torch

from bench.census_data import FILE, HELD_OUT, TASKS, Part, cut, masked, read_census
from contract.settings import ModelConfig, TrainingConfig
from training.data.examples import Examples
from training.data.split import split_by_time
from training.metrics.metrics import Array, auc
from training.trainer.fit import Epoch, fit
from training.trainer.learner import predict

AIMS: Final = {"income": 0.9445, "married": 0.9940}
MASKED_SHARE, MASKED_COST_MAX = 0.5, 0.005
MEASURED_BY: Final = ("contract", "model", "training", "bench/census.py", "bench/census_data.py")
TREES: Final = {
    "learning_rate": 0.03,
    "num_leaves": 31,
    "min_child_samples": 100,
    "feature_fraction": 0.5,
    "cat_smooth": 50,
    "verbose": -1,
    "num_threads": 1,
}  # better than its own defaults on these data
TREES_MAX, TREES_PATIENCE = 2_000, 60


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """One row with one seed: the AUC of each task, how many numbers were learned, and seconds of CPU."""

    auc: dict[str, float]
    parameters: int
    seconds: float


Method = Callable[[Part, int], Try]

PLAN: Final = TrainingConfig(
    batch=1_024, epochs=12, learning_rate=0.003, weight_decay=0.0003, patience=3, held_out=HELD_OUT
)
PLAIN: Final = ModelConfig(embedding=8, hidden=64, factors=0, experts=4, expert=32, tower=16)
SHAPES: Final = {
    "single_task": PLAIN.model_copy(update={"architecture": "single"}),
    "shared_bottom": PLAIN.model_copy(update={"architecture": "shared_bottom", "expert": 64}),
    "mmoe": PLAIN,
    "ple": PLAIN.model_copy(update={"architecture": "ple", "experts": 2, "own": 1, "levels": 2}),
}
OURS: Final = PLAIN.model_copy(
    update={
        "hidden": 128,
        "experts": 3,
        "expert": 48,
        "tower": 24,
        "bins": 32,
        "cross": 1,
        "cross_rank": 16,
        "members": 8,
        "dropout": 0.1,
    }
)
OUR_PLAN: Final = PLAN.model_copy(
    update={"batch": 512, "epochs": 14, "learning_rate": 0.001, "weight_decay": 0.03, "patience": 4}
)


def network(shape: ModelConfig, plan: TrainingConfig, mask: float = 0.0) -> Method:
    """A row of our own network: fitted on all tasks, or one after the other where nothing is shared."""

    def tried(part: Part, seed: int) -> Try:
        began, learning = time.process_time(), masked(part.learning, mask, seed) if mask else part.learning
        alone = [(task,) for task in TASKS] if shape.architecture == "single" else [TASKS]
        found, parameters = dict[str, float](), 0
        for tasks in alone:
            fitted = fit(learning.for_tasks(tasks), shape, plan.model_copy(update={"seed": seed}), quiet).network
            answers = predict(fitted, part.judging.for_tasks(tasks))
            found |= {name: auc(part.judging.labels[name], p) for name, p in answers.items()}
            parameters += sum(parameter.numel() for parameter in fitted.parameters())
        return Try(auc=found, parameters=parameters, seconds=time.process_time() - began)

    return tried


def quiet(_: Epoch) -> None:
    """What an epoch has to say is not wanted here."""


def trees(part: Part, seed: int) -> Try:
    """Gradient-boosted trees, one ensemble for each task, their number chosen on the same rows that choose for us."""
    began, found, leaves = time.process_time(), dict[str, float](), 0
    split = split_by_time(part.learning, HELD_OUT)
    teaching, choosing = part.learning.take(split.training), part.learning.take(split.validation)
    codes = [np.unique(column) for column in teaching.blocks["user"].ids.T]
    columns = teaching.blocks["user"].numbers.shape[1]
    for task in TASKS:
        learned = lightgbm.Dataset(
            matrix(teaching, codes),
            teaching.labels[task.name],
            categorical_feature=list(range(columns, columns + len(codes))),
        )
        chosen = lightgbm.Dataset(matrix(choosing, codes), choosing.labels[task.name], reference=learned)
        booster = lightgbm.train(
            {**TREES, "objective": "binary", "metric": "auc", "seed": seed},
            learned,
            TREES_MAX,
            valid_sets=[chosen],
            callbacks=[lightgbm.early_stopping(TREES_PATIENCE, verbose=False)],
        )
        found[task.name] = auc(part.judging.labels[task.name], np.asarray(booster.predict(matrix(part.judging, codes))))
        leaves += sum(tree["num_leaves"] for tree in booster.dump_model(booster.best_iteration)["tree_info"])
    return Try(auc=found, parameters=leaves, seconds=time.process_time() - began)


def matrix(of: Examples, codes: Sequence[Array]) -> Array:
    """Numbers and coded categories (N, columns) as LightGBM reads them; a category not met is unknown."""
    block = of.blocks["user"]
    found = [np.searchsorted(code, ids).clip(max=len(code) - 1) for code, ids in zip(codes, block.ids.T, strict=True)]
    coded = [np.where(code[at] == ids, at, np.nan) for code, at, ids in zip(codes, found, block.ids.T, strict=True)]
    return np.column_stack([block.numbers, *coded]).astype(np.float64)


ROWS: Final[dict[str, Method]] = {
    **{name: network(shape, PLAN) for name, shape in SHAPES.items()},
    "ours": network(OURS, OUR_PLAN),
    "lightgbm": trees,
}
MASKED: Final[dict[str, Method]] = {"mmoe_masked": network(SHAPES["mmoe"], PLAN, MASKED_SHARE)}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and standard deviation over seeds; `parameters` (of trees: leaves) and CPU `seconds` of one fit."""

    income: tuple[float, float]
    married: tuple[float, float]
    parameters: int
    seconds: float


class Kept(msgspec.Struct, kw_only=True):
    """What is measured already, by row and seed, and by which code."""

    code: str
    tries: dict[str, Try] = {}


class Census:
    """Measures rows one seed after the other and keeps each figure as soon as it is there."""

    def __init__(self, *, people: Examples, kept: Path) -> None:
        self.people, self.path = people, kept
        self.kept = Kept(code=code_digest())
        if kept.is_file() and (before := msgspec.json.decode(kept.read_bytes(), type=Kept)).code == self.kept.code:
            self.kept = before

    def row(self, name: str, method: Method, seeds: int) -> Row:
        tries = [self.one(name, method, seed) for seed in range(seeds)]
        aucs = {task.name: np.array([one.auc[task.name] for one in tries]) for task in TASKS}
        spread = {
            task: (round(float(a.mean()), 5), round(float(a.std(ddof=len(a) > 1)), 5)) for task, a in aucs.items()
        }
        parameters, seconds = (float(np.mean([getattr(t, of) for t in tries])) for of in ("parameters", "seconds"))
        return Row(
            income=spread["income"], married=spread["married"], parameters=round(parameters), seconds=round(seconds, 1)
        )

    def one(self, name: str, method: Method, seed: int) -> Try:
        key = f"{name}/{seed}"
        if key not in self.kept.tries:
            self.kept.tries[key] = method(cut(self.people, seed), seed)
            aside = self.path.with_suffix(".part")
            aside.write_bytes(msgspec.json.encode(self.kept))
            aside.replace(self.path)
            print(f"{key}: {self.kept.tries[key]}", file=sys.stderr)
        return self.kept.tries[key]


def code_digest(root: Path = Path(__file__).parents[1]) -> str:
    """Of the code and libraries that measure."""
    found = hashlib.sha256("".join(version(name) for name in ("torch", "lightgbm", "numpy")).encode())
    for path in sorted(one for part in MEASURED_BY for one in sources(root / part)):
        found.update(path.read_bytes())
    return found.hexdigest()


def sources(path: Path) -> Iterable[Path]:
    return path.rglob("*.py") if path.is_dir() else [path]


def missed(rows: dict[str, Row]) -> Iterable[str]:
    """The aims that these rows do not reach, as sentences."""
    for task, aim in AIMS.items():
        if "ours" in rows and (found := getattr(rows["ours"], task)[0]) < aim:
            yield f"ours should reach {aim} on {task}. Found {found}."
        if {"mmoe", "mmoe_masked"} <= rows.keys():
            cost = getattr(rows["mmoe"], task)[0] - getattr(rows["mmoe_masked"], task)[0]
            if cost > MASKED_COST_MAX:
                yield f"Half of the labels should cost at most {MASKED_COST_MAX} on {task}. Found {cost:.4f}."


def main(words: Sequence[str]) -> int:
    """Measure what is asked for; 0: it was measured, 1: the data is not there."""
    arguments = parse(words)
    if not (arguments.data / FILE).is_file():
        print(
            f"The data should be at {arguments.data / FILE}: set SHOPSTREAM_DATA or --data. Found none.",
            file=sys.stderr,
        )
        return 1
    torch.set_num_threads(1)
    census = Census(people=read_census(arguments.data), kept=arguments.kept)
    methods = ROWS | (MASKED if arguments.masked else {})
    rows = {name: census.row(name, methods[name], arguments.seeds) for name in arguments.rows or methods}
    for sentence in missed(rows):
        print(f"Missed: {sentence}", file=sys.stderr)
    show(rows, as_json=arguments.json)
    return 0


def show(rows: dict[str, Row], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode({"rows": rows}).decode())
        return
    for name, row in rows.items():
        aucs = "   ".join(
            f"{task} {mean:.4f} ± {sd:.4f}" for task, (mean, sd) in (("income", row.income), ("married", row.married))
        )
        print(f"{name:14} {aucs}   {row.parameters:9} parameters   {row.seconds:6.1f} s")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench census", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--seeds", type=int, default=5, help="how often each row is measured")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *MASKED], help="these rows alone")
    parser.add_argument("--masked", action="store_true", help="a further row, that learns from half of the labels")
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    kept = Path(tempfile.gettempdir()) / "shopstream-bench-census.json"
    parser.add_argument("--kept", type=Path, default=kept, help="where measured rows are kept")
    return parser.parse_args(words)
