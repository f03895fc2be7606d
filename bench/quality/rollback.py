"""`python -m bench rollback`: how often a sound bundle is rolled back, and how soon a harmful one.

The rows that a bundle served come from few users, and the rows of one user are correlated. The bundle and its parent
both predict the truth with independent errors. A sound bundle has errors as large as its parent's; one at the margin
loses exactly the allowed share of gain, which is the hardest case; a harmful one loses more. The monitor's own code
tests each bundle repeatedly as rows mature.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from bench.results.report import print_progress, print_result
from contract.tasks import Task
from training.monitor.alpha_spending import AlphaSpending
from training.stats.paired_loss import compare_losses, measure_excess_loss

CLICK: Final = Task("click", "binary", ("user",), "recommend")
FRAUD: Final = Task("fraud", "binary", ("user",), "decide")
TASK_LEVELS: Final = {"click": (CLICK, -1.5), "fraud": (FRAUD, -4.0)}  # mean logit
MARGIN: Final = 0.05
HARM: Final = 0.15  # share of the parent's gain that a harmful bundle loses
RISK: Final = 0.05
ROWS_MIN: Final = 1_000
ROWS_MAX: Final = 16_000
PEOPLE: Final = 300
BUNDLES: Final = 200
ERROR: Final = 0.4  # size of the parent's errors, in logits


def compute_lost_gain(error: float, level: float) -> float:
    """The true loss of gain of a bundle with errors of this size, compared with a parent with errors of `ERROR`."""
    rng = np.random.default_rng(0)
    truth = level + rng.normal(0, 1.2, 100_000)
    p, noise = expit(truth), rng.normal(0, 1, len(truth))

    def compute_loss(size: float) -> float:
        q = expit(truth + size * noise)
        return float(-(p * np.log(q) + (1 - p) * np.log(1 - q)).mean())

    mean = float(p.mean())
    return (compute_loss(error) - compute_loss(ERROR)) / float(-(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)))


def find_error_size(lost_gain: float, level: float) -> float:
    """The size of errors that loses this share of gain."""
    low, high = ERROR, 5.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_lost_gain(middle, level) < lost_gain else (low, middle)
    return low


def simulate_rollback(task: Task, level: float, error: float, seed: int, risk: float) -> int | None:
    """Rows until a bundle with errors of this size is rolled back; None: not within `ROWS_MAX` rows."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, PEOPLE, ROWS_MAX)
    habits = rng.normal(0, 1, (3, PEOPLE))[:, person]  # of truth and of both models' errors
    row_noise = rng.normal(0, 1, (3, ROWS_MAX))
    truth, bundle_noise, parent_noise = np.sqrt(0.5) * (habits + row_noise)
    truth = level + 1.2 * truth
    y = (rng.random(ROWS_MAX) < expit(truth)).astype(np.float64)
    bundle_p, parent_p = expit(truth + error * bundle_noise), expit(truth + ERROR * parent_noise)
    users = [str(user) for user in person.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        spending, rows = AlphaSpending(bundles=Path(folder), version="v", rows_min=ROWS_MIN), ROWS_MIN
        while rows <= ROWS_MAX:
            ts_ms = np.arange(1, rows + 1)
            if spending.is_due(task.name, ts_ms):
                pairs = compare_losses(task, y[:rows], np.ones(rows), users[:rows], bundle_p[:rows], parent_p[:rows])
                risk_share = spending.spend(task.name, ts_ms)
                result = pairs and measure_excess_loss({task.name: pairs}, {task.name: 1.0}, MARGIN)
                if result and result.p < risk * risk_share:
                    return rows
            rows += ROWS_MIN // 2
    return None


def main(argv: Sequence[str]) -> int:
    """Measure. 0: false rollbacks are not significantly above `risk`, and every harmful bundle is rolled back."""
    arguments, started_s = parse(argv), time.process_time()
    seeds = range(max(3, round(BUNDLES * arguments.scale)))
    figures = dict[str, dict[str, float | None]]()
    for name, (task, level) in TASK_LEVELS.items():
        for kind, lost in (("sound", 0.0), ("at the margin", MARGIN), ("harmful", HARM)):
            error = find_error_size(lost, level) if lost else ERROR
            rows = [simulate_rollback(task, level, error, seed, arguments.risk) for seed in seeds]
            rows_at_rollback = [row_count for row_count in rows if row_count is not None]
            median = float(np.median(rows_at_rollback)) if rows_at_rollback else None
            figures[f"{name}, {kind}"] = {"taken_back": round(len(rows_at_rollback) / len(rows), 4), "rows": median}
            print_progress(f"{name}, {kind}: {figures[f'{name}, {kind}']}")
    share_max = float(binom.ppf(0.99, len(seeds), arguments.risk)) / len(seeds)
    shares = {kind: row_count["taken_back"] or 0.0 for kind, row_count in figures.items()}
    is_rare = all(share <= share_max for kind, share in shares.items() if "harmful" not in kind)
    all_found = all(share >= 0.95 for kind, share in shares.items() if "harmful" in kind)
    seconds = round(time.process_time() - started_s, 1)
    report = {
        "risk": arguments.risk,
        "at_most": round(share_max, 4),
        "bundles": len(seeds),
        "found": figures,
        "seconds": seconds,
    }
    print_result(report, as_json=arguments.json)
    return 0 if is_rare and all_found else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench rollback", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of bundles")
    parser.add_argument("--risk", type=float, default=RISK, help="allowed probability of a false rollback")
    return parser.parse_args(argv)
