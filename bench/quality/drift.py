"""`python -m bench drift`: the false alarm rate of the monitor's drift tests, and their delay in detecting a shift.

Scored rows of a stationary shop: users of very different activity with correlated rows (each user has habits), numbers
with ties and missing values, categories, lists of ids, and a score. They go through the monitor's own code. The events
per alarm are measured over many blocks; then one column at a time is shifted, and the events until its alarm counted.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from bench.results.report import print_progress, print_result
from contract.features.declaration import Block, Feature, FeatureSet
from contract.features.packing import PackedBlock
from contract.messages import ScoredRow
from contract.settings.monitor import MonitorConfig
from training.monitor.drift import BlockComparison, DriftDetector

FEATURES: Final = FeatureSet(
    [
        Feature("amount", "order", "number", "event.amount"),
        Feature("spent", "order", "number", "profile.user.orders.sum_30d"),
        Feature("orders", "order", "number", "profile.user.orders.count_7d"),
        Feature("payment", "order", "category", "event.payment_method"),
        Feature("recent", "user", "sequence", "profile.user.recent"),
        Feature("clicks", "user", "number", "profile.user.clicks.count_1d"),
        Feature("gap", "user", "number", "profile.user.clicks.gap_s"),
        Feature("surface", "context", "category", "event.surface"),
    ]
)
PEOPLE: Final = 4_000
BLOCK: Final = 500
ROWS: Final = 2_000  # per batch
EVENTS_PER_ALARM: Final = 16_000
EVENTS: Final = 800_000
SEEDS: Final = 8
EVENT_MS: Final = 1_000
Rows = dict[str, npt.NDArray[np.float64]]
Shift = Callable[[Rows, np.random.Generator], None]


@dataclass(frozen=True, slots=True)
class Population:
    """Users with habits: activity, spending and preferences; all (PEOPLE,)."""

    activity: npt.NDArray[np.float64]
    habit: npt.NDArray[np.float64]
    liking: npt.NDArray[np.int64]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Population":
        activity = rng.pareto(1.5, PEOPLE) + 0.2
        return cls(activity / activity.sum(), rng.normal(0, 1, PEOPLE), rng.integers(1, 2**40, PEOPLE))


def draw_batch(population: Population, rows: int, rng: np.random.Generator) -> Rows:
    """Rows of randomly drawn users; the rows of one user are correlated."""
    user = rng.choice(PEOPLE, rows, p=population.activity)
    habit = population.habit[user]
    return {
        "user": user.astype(np.float64),
        "amount": np.exp(3 + 0.7 * habit + 0.7 * rng.normal(0, 1, rows)),
        "spent": np.where(rng.random(rows) < 0.3, np.nan, np.exp(4 + habit + 0.3 * rng.normal(0, 1, rows))),
        "orders": rng.poisson(np.exp(0.5 * habit)).astype(np.float64),
        "payment": (population.liking[user] + (rng.random(rows) < 0.1)) % 4 + 1.0,
        "recent": np.where(rng.random(rows) < 0.2, 0, population.liking[user] + rng.integers(0, 50, rows)).astype(
            float
        ),
        "clicks": np.where(rng.random(rows) < 0.6, 0, rng.poisson(3, rows)).astype(np.float64),
        "gap": np.where(rng.random(rows) < 0.02, np.nan, rng.exponential(1_000, rows)),
        "surface": rng.choice(5, rows, p=[0.5, 0.3, 0.1, 0.07, 0.03]) + 1.0,
        "score": 1 / (1 + np.exp(3 - habit - rng.normal(0, 1, rows))),
    }


def make_half_larger(name: str) -> Shift:
    def shift(rows: Rows, rng: np.random.Generator) -> None:
        rows[name] *= 1.5

    return shift


def make_missing(name: str, share: float) -> Shift:
    def shift(rows: Rows, rng: np.random.Generator) -> None:
        rows[name][rng.random(len(rows[name])) < share] = np.nan

    return shift


def make_new_value(name: str, share: float) -> Shift:
    """A share of the rows gets a value that did not occur before."""

    def shift(rows: Rows, rng: np.random.Generator) -> None:
        rows[name][rng.random(len(rows[name])) < share] = 7.0

    return shift


SHIFTS: Final[dict[str, tuple[str, Shift]]] = {
    "amounts half as much again": ("amount", make_half_larger("amount")),
    "a tenth of the gaps missing": ("gap missing", make_missing("gap", 0.1)),
    "all of the gaps missing": ("gap missing", make_missing("gap", 1.0)),
    "a tenth of payments of a new kind": ("payment", make_new_value("payment", 0.1)),
    "scores half as high again": ("score.fraud", make_half_larger("score")),
}


def to_scored(rows: Rows, begin: int) -> Iterator[ScoredRow]:
    """The rows as scored rows."""
    n = len(rows["user"])
    ids = np.zeros((n, FEATURES.widths("user")[1]), np.int64)
    ids[:, 0] = rows["recent"]
    blocks = {
        "order": Block(stack_columns(rows, "amount", "spent", "orders"), rows["payment"].astype(np.int64)[:, None]),
        "user": Block(stack_columns(rows, "clicks", "gap"), ids),
        "context": Block(np.empty((n, 0), np.float32), rows["surface"].astype(np.int64)[:, None]),
    }
    users, scores = rows["user"].astype(np.int64).tolist(), rows["score"].tolist()
    for index in range(n):
        groups = {
            g: PackedBlock(1, block.numbers[index].tobytes(), block.ids[index].tobytes()) for g, block in blocks.items()
        }
        yield ScoredRow(
            event_id=f"e{begin + index}",
            kind="order",
            user_id=f"u{users[index]}",
            ts_ms=(begin + index) * EVENT_MS,
            topic="shop.scored",
            partition=0,
            offset=begin + index,
            model_version="1",
            features=FEATURES.digest,
            groups=groups,
            scores={"fraud": (scores[index],)},
        )


def stack_columns(rows: Rows, *names: str) -> npt.NDArray[np.float32]:
    return np.stack([rows[name] for name in names], 1).astype(np.float32)


def create_drift(events_per_alarm: int) -> DriftDetector:
    return DriftDetector(
        features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0, events_per_alarm=events_per_alarm)
    )


def count_false_alarms(events: int, events_per_alarm: int, seed: int) -> tuple[int, int]:
    """The numbers of alarms and blocks on stationary data."""
    rng = np.random.default_rng(seed)
    population = Population.draw(rng)
    drift = create_drift(events_per_alarm)
    comparisons = list[BlockComparison]()
    for begin in range(0, events, ROWS):
        rows = to_scored(draw_batch(population, ROWS, rng), begin)
        comparisons += [comparison for row in rows if (comparison := drift.observe(row)) is not None]
    return sum(len(comparison.alarms) for comparison in comparisons), len(comparisons)


def measure_delay(column: str, shift: Shift, events_per_alarm: int, seed: int) -> int | None:
    """Events from a shift to its alarm; None if forty blocks do not show it."""
    rng = np.random.default_rng(seed)
    population, drift = Population.draw(rng), create_drift(events_per_alarm)
    for row in to_scored(draw_batch(population, 3 * ROWS, rng), 0):
        drift.observe(row)
    for offset in range(0, 40 * BLOCK, BLOCK):
        rows = draw_batch(population, BLOCK, rng)
        shift(rows, rng)
        for number, row in enumerate(to_scored(rows, 3 * ROWS + offset)):
            comparison = drift.observe(row)
            if comparison and column in {alarm.column for alarm in comparison.alarms}:
                return offset + number + 1
    return None


def main(argv: Sequence[str]) -> int:
    """Measure. 0: false alarms are not significantly more frequent than asked for, and every shift is detected."""
    arguments, started_s = parse(argv), time.process_time()
    events, events_per_alarm = int(EVENTS * arguments.scale), arguments.asked
    alarms, blocks = count_false_alarms(events, events_per_alarm, arguments.seed)
    at_least = 2 * events / chi2.ppf(0.95, 2 * alarms + 2)  # events per alarm, at 95 % confidence
    print_progress(f"{alarms} alarms in {events:,} events, {blocks} blocks")
    detected = dict[str, dict[str, float | None]]()
    for name, (column, shift) in SHIFTS.items():
        delays = [
            measure_delay(column, shift, events_per_alarm, seed)
            for seed in range(max(1, round(SEEDS * arguments.scale)))
        ]
        known_delays = [delay for delay in delays if delay is not None]
        median = float(np.median(known_delays)) if known_delays else None
        detected[name] = {"share": round(len(known_delays) / len(delays), 3), "events": median}
        print_progress(f"{name}: {detected[name]}")
    figures = {
        "events_per_false_alarm": round(events / max(alarms, 1)),
        "asked": events_per_alarm,
        "at_most_one_in": round(2 * events / chi2.ppf(0.05, max(2 * alarms, 1))),
        "at_least_one_in": round(at_least),
        "alarms": alarms,
        "events": events,
        "blocks": blocks,
        "detected": detected,
        "seconds": round(time.process_time() - started_s, 1),
    }
    print_result(figures, as_json=arguments.json)
    is_rare = figures["at_most_one_in"] >= events_per_alarm
    return 0 if is_rare and all(figures_of_shift["share"] == 1 for figures_of_shift in detected.values()) else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench drift", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of events")
    parser.add_argument("--asked", type=int, default=EVENTS_PER_ALARM, help="events per false alarm")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(argv)
