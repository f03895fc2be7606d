"""`python -m bench drift`: are false alarms as rare as was asked for, and how soon is a shift found?

Scored rows of a shop that does not change: people of very different activity, whose rows are alike (each has habits of
their own), numbers with ties and gaps, categories, lists of ids, and a score. They go through the watcher's own code.
The events for each alarm are measured over many blocks; then one thing at a time is shifted, and events are counted
until its own alarm.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from contract.features.declaration import Block, Feature, FeatureSet
from contract.messages import PackedBlock, ScoredRow
from contract.settings import MonitorConfig
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
ROWS: Final = 2_000  # drawn at a time
ASKED: Final = 16_000
EVENTS: Final = 800_000
SEEDS: Final = 8
EVENT_MS: Final = 1_000
Rows = dict[str, npt.NDArray[np.float64]]
Shift = Callable[[Rows, np.random.Generator], None]


@dataclass(frozen=True, slots=True)
class World:
    """People with habits: how often they come, how much they spend, what they like; all (PEOPLE,)."""

    activity: npt.NDArray[np.float64]
    habit: npt.NDArray[np.float64]
    liking: npt.NDArray[np.int64]

    @classmethod
    def drawn(cls, chance: np.random.Generator) -> "World":
        activity = chance.pareto(1.5, PEOPLE) + 0.2
        return cls(activity / activity.sum(), chance.normal(0, 1, PEOPLE), chance.integers(1, 2**40, PEOPLE))


def draw(world: World, rows: int, chance: np.random.Generator) -> Rows:
    """What is served to people who come by chance; a person's own rows are alike."""
    user = chance.choice(PEOPLE, rows, p=world.activity)
    habit = world.habit[user]
    return {
        "user": user.astype(np.float64),
        "amount": np.exp(3 + 0.7 * habit + 0.7 * chance.normal(0, 1, rows)),
        "spent": np.where(chance.random(rows) < 0.3, np.nan, np.exp(4 + habit + 0.3 * chance.normal(0, 1, rows))),
        "orders": chance.poisson(np.exp(0.5 * habit)).astype(np.float64),
        "payment": (world.liking[user] + (chance.random(rows) < 0.1)) % 4 + 1.0,
        "recent": np.where(chance.random(rows) < 0.2, 0, world.liking[user] + chance.integers(0, 50, rows)).astype(
            float
        ),
        "clicks": np.where(chance.random(rows) < 0.6, 0, chance.poisson(3, rows)).astype(np.float64),
        "gap": np.where(chance.random(rows) < 0.02, np.nan, chance.exponential(1_000, rows)),
        "surface": chance.choice(5, rows, p=[0.5, 0.3, 0.1, 0.07, 0.03]) + 1.0,
        "score": 1 / (1 + np.exp(3 - habit - chance.normal(0, 1, rows))),
    }


def half_more(name: str) -> Shift:
    def shift(rows: Rows, chance: np.random.Generator) -> None:
        rows[name] *= 1.5

    return shift


def lost(name: str, share: float) -> Shift:
    def shift(rows: Rows, chance: np.random.Generator) -> None:
        rows[name][chance.random(len(rows[name])) < share] = np.nan

    return shift


def moved(name: str, share: float) -> Shift:
    """A share of the rows has a value that was never there before."""

    def shift(rows: Rows, chance: np.random.Generator) -> None:
        rows[name][chance.random(len(rows[name])) < share] = 7.0

    return shift


SHIFTS: Final[dict[str, tuple[str, Shift]]] = {
    "amounts half as much again": ("amount", half_more("amount")),
    "a tenth of the gaps missing": ("gap missing", lost("gap", 0.1)),
    "all of the gaps missing": ("gap missing", lost("gap", 1.0)),
    "a tenth of payments of a new kind": ("payment", moved("payment", 0.1)),
    "scores half as high again": ("score.fraud", half_more("score")),
}


def scored(rows: Rows, begin: int) -> Iterator[ScoredRow]:
    """The rows as they are logged."""
    n = len(rows["user"])
    ids = np.zeros((n, FEATURES.widths("user")[1]), np.int64)
    ids[:, 0] = rows["recent"]
    blocks = {
        "order": Block(columns(rows, "amount", "spent", "orders"), rows["payment"].astype(np.int64)[:, None]),
        "user": Block(columns(rows, "clicks", "gap"), ids),
        "context": Block(np.empty((n, 0), np.float32), rows["surface"].astype(np.int64)[:, None]),
    }
    users, scores = rows["user"].astype(np.int64).tolist(), rows["score"].tolist()
    for at in range(n):
        groups = {
            g: PackedBlock(1, block.numbers[at].tobytes(), block.ids[at].tobytes()) for g, block in blocks.items()
        }
        yield ScoredRow(
            event_id=f"e{begin + at}",
            kind="order",
            user_id=f"u{users[at]}",
            ts_ms=(begin + at) * EVENT_MS,
            topic="shop.scored",
            partition=0,
            offset=begin + at,
            model_version="1",
            features=FEATURES.digest,
            groups=groups,
            scores={"fraud": (scores[at],)},
        )


def columns(rows: Rows, *names: str) -> npt.NDArray[np.float32]:
    return np.stack([rows[name] for name in names], 1).astype(np.float32)


def watched(asked: int) -> DriftDetector:
    return DriftDetector(features=FEATURES, config=MonitorConfig(block=BLOCK, block_s=0, events_per_alarm=asked))


def false_alarms(events: int, asked: int, seed: int) -> tuple[int, int]:
    """Alarms and blocks where nothing changes."""
    chance = np.random.default_rng(seed)
    world, drift, compared = World.drawn(chance), watched(asked), list[BlockComparison]()
    for begin in range(0, events, ROWS):
        rows = scored(draw(world, ROWS, chance), begin)
        compared += [one for row in rows if (one := drift.observe(row)) is not None]
    return sum(len(one.alarms) for one in compared), len(compared)


def delay(column: str, shift: Shift, asked: int, seed: int) -> int | None:
    """Events from a shift to its alarm; None where twenty blocks do not show it."""
    chance = np.random.default_rng(seed)
    world, drift = World.drawn(chance), watched(asked)
    for row in scored(draw(world, 3 * ROWS, chance), 0):
        drift.observe(row)
    for at in range(0, 40 * BLOCK, BLOCK):
        rows = draw(world, BLOCK, chance)
        shift(rows, chance)
        for n, row in enumerate(scored(rows, 3 * ROWS + at)):
            found = drift.observe(row)
            if found and column in {alarm.column for alarm in found.alarms}:
                return at + n + 1
    return None


def main(words: Sequence[str]) -> int:
    """Measure; 0: no more false alarms than asked for (by more than chance), and every shift was found."""
    arguments, begun = parse(words), time.process_time()
    events, asked = int(EVENTS * arguments.scale), arguments.asked
    alarms, blocks = false_alarms(events, asked, arguments.seed)
    at_least = 2 * events / chi2.ppf(0.95, 2 * alarms + 2)  # events for each alarm, at a confidence of 95 %
    print(f"{alarms} alarms in {events:,} events, {blocks} blocks.", file=sys.stderr)
    detected = dict[str, dict[str, float | None]]()
    for name, (column, shift) in SHIFTS.items():
        delays = [delay(column, shift, asked, seed) for seed in range(max(1, round(SEEDS * arguments.scale)))]
        known = [one for one in delays if one is not None]
        median = float(np.median(known)) if known else None
        detected[name] = {"share": round(len(known) / len(delays), 3), "events": median}
        print(f"{name}: {detected[name]}", file=sys.stderr)
    found = {
        "events_per_false_alarm": round(events / max(alarms, 1)),
        "asked": asked,
        "at_most_one_in": round(2 * events / chi2.ppf(0.05, max(2 * alarms, 1))),
        "at_least_one_in": round(at_least),
        "alarms": alarms,
        "events": events,
        "blocks": blocks,
        "detected": detected,
        "seconds": round(time.process_time() - begun, 1),
    }
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))
    rare = found["at_most_one_in"] >= asked
    return 0 if rare and all(one["share"] == 1 for one in detected.values()) else 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench drift", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument("--scale", type=float, default=1.0, help="of how much is measured")
    parser.add_argument("--asked", type=int, default=ASKED, help="one false alarm in so many events")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)
