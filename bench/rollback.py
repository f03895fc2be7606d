"""`python -m bench rollback`: how often is a sound bundle taken back, and how soon a harmful one?

Rows that a bundle served, of people who come again and again and whose rows are alike. It and its parent both answer
around the truth, each with errors of its own. A sound bundle is as far from the truth as its parent; one at the margin
loses exactly what may be lost, which is the hardest case; a harmful one loses more. Each is looked at again and again
by the watcher's own code, as rows mature.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from contract.tasks import Task
from training.monitor.alpha_spending import AlphaSpending
from training.stats.paired_loss import compare_losses, measure_excess_loss

CLICK: Final = Task("click", "binary", ("user",), "recommend")
FRAUD: Final = Task("fraud", "binary", ("user",), "decide")
WORLDS: Final = {"click": (CLICK, -1.5), "fraud": (FRAUD, -4.0)}  # logits of the usual row
MARGIN: Final = 0.05
HARM: Final = 0.15  # of its parent's gain, lost by a harmful bundle
RISK: Final = 0.05
ROWS_MIN: Final = 1_000
MOST: Final = 16_000
PEOPLE: Final = 300
BUNDLES: Final = 200
ERROR: Final = 0.4  # of a logit, of the parent
Floats = npt.NDArray[np.float64]


def chance_of(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


def lost_by(error: float, level: float) -> float:
    """The gain that is lost for good where a bundle's errors are of this size and its parent's are of `ERROR`."""
    chance = np.random.default_rng(0)
    truth = level + chance.normal(0, 1.2, 100_000)
    p, noise = chance_of(truth), chance.normal(0, 1, len(truth))

    def loss(size: float) -> float:
        q = chance_of(truth + size * noise)
        return float(-(p * np.log(q) + (1 - p) * np.log(1 - q)).mean())

    mean = float(p.mean())
    return (loss(error) - loss(ERROR)) / float(-(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)))


def error_that_loses(wanted: float, level: float) -> float:
    """The size of errors that lose so much."""
    low, high = ERROR, 5.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if lost_by(middle, level) < wanted else (low, middle)
    return low


def taken_back(task: Task, level: float, error: float, seed: int, risk: float) -> int | None:
    """At how many rows a bundle with errors of this size is taken back; None: never, up to `MOST`."""
    chance = np.random.default_rng(seed)
    person = chance.integers(0, PEOPLE, MOST)
    habits = chance.normal(0, 1, (3, PEOPLE))[
        :, person
    ]  # of truth, and of both models' errors: a person's rows are alike
    own = chance.normal(0, 1, (3, MOST))
    truth, wrong, parents = np.sqrt(0.5) * (habits + own)
    truth = level + 1.2 * truth
    y = (chance.random(MOST) < chance_of(truth)).astype(np.float64)
    said, says = chance_of(truth + error * wrong), chance_of(truth + ERROR * parents)
    users = [f"{one}" for one in person.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        looks, rows = AlphaSpending(bundles=Path(folder), version="v", rows_min=ROWS_MIN), ROWS_MIN
        while rows <= MOST:
            ts_ms = np.arange(1, rows + 1)
            if looks.is_due(task.name, ts_ms):
                pairs = compare_losses(task, y[:rows], np.ones(rows), users[:rows], said[:rows], says[:rows])
                part = looks.spend(task.name, ts_ms)
                one = pairs and measure_excess_loss({task.name: pairs}, {task.name: 1.0}, MARGIN)
                if one and one.p < risk * part:
                    return rows
            rows += ROWS_MIN // 2
    return None


def main(words: Sequence[str]) -> int:
    """Measure; 0: no more false rollbacks than risked (by more than chance), and every harmful bundle is taken back."""
    arguments, begun = parse(words), time.process_time()
    seeds = range(max(3, round(BUNDLES * arguments.scale)))
    found = dict[str, dict[str, float | None]]()
    for name, (task, level) in WORLDS.items():
        for kind, lost in (("sound", 0.0), ("at the margin", MARGIN), ("harmful", HARM)):
            error = error_that_loses(lost, level) if lost else ERROR
            rows = [taken_back(task, level, error, seed, arguments.risk) for seed in seeds]
            back = [one for one in rows if one is not None]
            median = float(np.median(back)) if back else None
            found[f"{name}, {kind}"] = {"taken_back": round(len(back) / len(rows), 4), "rows": median}
            print(f"{name}, {kind}: {found[f'{name}, {kind}']}", file=sys.stderr)
    most = float(binom.ppf(0.99, len(seeds), arguments.risk)) / len(seeds)
    shares = {kind: one["taken_back"] or 0.0 for kind, one in found.items()}
    rare = all(share <= most for kind, share in shares.items() if "harmful" not in kind)
    every = all(share >= 0.95 for kind, share in shares.items() if "harmful" in kind)
    seconds = round(time.process_time() - begun, 1)
    told = {
        "risk": arguments.risk,
        "at_most": round(most, 4),
        "bundles": len(seeds),
        "found": found,
        "seconds": seconds,
    }
    print(json.dumps(told) if arguments.json else "\n".join(f"{key}: {value}" for key, value in told.items()))
    return 0 if rare and every else 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench rollback", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="of how many bundles are looked at")
    parser.add_argument("--risk", type=float, default=RISK, help="the chance of a false rollback that is asked for")
    return parser.parse_args(words)
