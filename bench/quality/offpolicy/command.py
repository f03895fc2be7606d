"""`python -m bench offpolicy`: what a new policy would have earned, estimated from another's logs, and the truth.

Simulated worlds with a known truth give the coverage of the 95 % intervals, and the share of worlds without overlap
that are refused. Open Bandit gives two policies of a real shop, each estimated from the other's logs.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench.quality.offpolicy.open_bandit import FILE, POLICIES, read_impressions, transfer
from bench.quality.offpolicy.worlds import COVERED, UNCOVERED, World, find_truth
from bench.results.report import print_json, print_missed, print_missing_data, print_progress
from training.offpolicy.evaluation import OffPolicyEstimate, OffPolicyEvaluation, as_tuple, evaluate_target
from training.stats.off_policy import estimate_mean
from training.stats.overlap import OverlapLimits

COVERAGE_AIM: Final = 0.9
REFUSED_AIM: Final = 0.95
LAWS: Final = 3  # laws of each kind of world
RUNS: Final = 40  # logs drawn from each law
ESTIMATORS: Final = ("ips", "snips", "dr")
LIMITS: Final = OverlapLimits()


class SimulatedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One estimator in one world: means over the runs that were answered. `width`: of the interval, on average."""

    world: str
    estimator: str
    truth: float
    logged: float
    estimate: float
    deviation: float
    width: float
    coverage: float
    runs: int
    refused: int


class LoggedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A policy of Open Bandit from the other's logs: what it earned, with a 95 % interval, and the estimates."""

    data: str = "open_bandit"
    policy: str
    logs: str
    campaign: str
    truth: tuple[float, float, float]
    logged: float
    estimates: dict[str, tuple[float, float, float]]
    refused: tuple[str, ...]
    effective_units: float
    weight_max: float


class OffPolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """`coverage`: of the intervals of all worlds. `refused_without_overlap`, `answered_with_overlap`: of their runs."""

    coverage: float
    coverage_by_estimator: dict[str, float]
    refused_without_overlap: float
    answered_with_overlap: float
    rows: list[SimulatedRow | LoggedRow]
    seconds: float


class WorldRuns:
    """The evaluations of one kind of world, by law with its truth."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.evaluations: list[tuple[float, OffPolicyEvaluation]] = []

    @property
    def refused(self) -> int:
        return sum(bool(evaluation.refused) for _, evaluation in self.evaluations)

    def list_estimates(self, estimator: str) -> list[tuple[float, float, OffPolicyEstimate]]:
        """The truth, what was earned, and the estimate, of each run that was answered."""
        return [
            (truth, evaluation.logged[0], evaluation.estimates[estimator])
            for truth, evaluation in self.evaluations
            if not evaluation.refused
        ]

    def summarize(self, estimator: str) -> SimulatedRow:
        runs = self.list_estimates(estimator)
        return SimulatedRow(
            world=self.name,
            estimator=estimator,
            truth=mean([truth for truth, _, _ in runs]),
            logged=mean([logged for _, logged, _ in runs]),
            estimate=mean([estimate.value for _, _, estimate in runs]),
            deviation=round(float(np.std([estimate.value - truth for truth, _, estimate in runs])), 5),
            width=mean([estimate.high - estimate.low for _, _, estimate in runs]),
            coverage=mean([is_covered(truth, estimate) for truth, _, estimate in runs], digits=4),
            runs=len(self.evaluations),
            refused=self.refused,
        )


def is_covered(truth: float, estimate: OffPolicyEstimate) -> bool:
    return estimate.low <= truth <= estimate.high


def mean(values: Sequence[float], digits: int = 5) -> float:
    return round(float(np.mean(values)), digits) if len(values) else float("nan")


def run_world(name: str, laws: Sequence[World], runs: int, *, needs_truth: bool) -> WorldRuns:
    """Draw logs from each law and evaluate them; worlds without overlap need no truth."""
    world_runs = WorldRuns(name)
    for law, world in enumerate(laws):
        truth = find_truth(world, seed=law) if needs_truth else float("nan")
        for run in range(runs):
            evaluation = evaluate_target(world.draw(np.random.default_rng([law, run])), LIMITS, seed=run)
            world_runs.evaluations.append((truth, evaluation))
    print_progress(f"{name}: {world_runs.refused} of {len(world_runs.evaluations)} runs refused")
    return world_runs


def measure_open_bandit(path: Path) -> Iterator[LoggedRow]:
    """Each policy from the other's logs, in all campaigns and in each."""
    impressions = read_impressions(path)
    campaigns = [None, *np.unique(impressions[POLICIES[0]].campaign).tolist()]
    for policy in POLICIES:
        own = impressions[policy]
        for campaign in campaigns:
            clicks = own.click[np.full(len(own.click), campaign is None) | (own.campaign == campaign)]
            evaluation = evaluate_target(transfer(policy, impressions, campaign), LIMITS)
            yield LoggedRow(
                policy=policy,
                logs=next(name for name in POLICIES if name != policy),
                campaign=campaign or "each",
                truth=round_all(as_tuple(estimate_mean(clicks).interval(np.arange(len(clicks))))),
                logged=round(evaluation.logged[0], 5),
                estimates={
                    name: round_all((estimate.value, estimate.low, estimate.high))
                    for name, estimate in evaluation.estimates.items()
                },
                refused=evaluation.refused,
                effective_units=round(evaluation.overlap.effective_units, 1),
                weight_max=round(evaluation.overlap.weight_max, 2),
            )


def round_all(values: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = (round(number, 5) for number in values)
    return value, low, high


def main(argv: Sequence[str]) -> int:
    """Measure. 0: intervals cover the truth and missing overlap is refused; 1: they do not; 2: the data is missing."""
    arguments, started_s = parse(argv), time.process_time()
    if not (arguments.data / FILE).is_file():
        print_missing_data(arguments.data / FILE)
        return 2
    runs = max(2, round(RUNS * arguments.scale))
    covered = [
        run_world(name, [make(law) for law in range(LAWS)], runs, needs_truth=True) for name, make in COVERED.items()
    ]
    uncovered = [
        run_world(name, [make(law) for law in range(LAWS)], runs, needs_truth=False) for name, make in UNCOVERED.items()
    ]
    result = summarize(covered, uncovered, list(measure_open_bandit(arguments.data / FILE)), started_s)
    if arguments.json:
        print_json(result)
    else:
        print_rows(result)
    return 1 if print_missed(find_missed(result)) else 0


def summarize(
    covered: Sequence[WorldRuns], uncovered: Sequence[WorldRuns], logged: Sequence[LoggedRow], started_s: float
) -> OffPolicyResult:
    hits = defaultdict[str, list[bool]](list)
    for world in covered:
        for estimator in ESTIMATORS:
            hits[estimator] += [is_covered(truth, estimate) for truth, _, estimate in world.list_estimates(estimator)]
    runs = sum(len(world.evaluations) for world in uncovered)
    answered = sum(len(world.evaluations) - world.refused for world in covered)
    return OffPolicyResult(
        coverage=mean([hit for by_run in hits.values() for hit in by_run], digits=4),
        coverage_by_estimator={estimator: mean(by_run, digits=4) for estimator, by_run in hits.items()},
        refused_without_overlap=round(sum(world.refused for world in uncovered) / runs, 4),
        answered_with_overlap=round(answered / sum(len(world.evaluations) for world in covered), 4),
        rows=[*(world.summarize(estimator) for world in covered for estimator in ESTIMATORS), *logged],
        seconds=round(time.process_time() - started_s, 1),
    )


def find_missed(result: OffPolicyResult) -> Iterator[str]:
    for estimator, coverage in result.coverage_by_estimator.items():
        if not coverage >= COVERAGE_AIM:
            yield f"Intervals of {estimator} should cover the truth in {COVERAGE_AIM:.0%}. Found {coverage:.1%}."
    if result.refused_without_overlap < REFUSED_AIM:
        yield (
            f"{REFUSED_AIM:.0%} of the runs without overlap should be refused. "
            f"Found {result.refused_without_overlap:.1%}."
        )


def print_rows(result: OffPolicyResult) -> None:
    for row in result.rows:
        print(" ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(row).items()))
    print(f"coverage {result.coverage:.1%}, refused without overlap {result.refused_without_overlap:.1%}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench offpolicy", description=__doc__)
    data = Path(os.environ.get("SHOPSTREAM_DATA", "data"))
    parser.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    parser.add_argument("--data", type=Path, default=data, help="the folder of data sets")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of runs")
    return parser.parse_args(argv)
