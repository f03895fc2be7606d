"""`python -m bench delay`: what late purchases cost who learns at once, and how much of it weights give back.

The same small network goes on from the same first days, by a step for each two hours of a stream whose truth is known:

    oracle     is told after the wait what will turn out to be true, which nobody can know
    naive      takes "not so far" at its face value, and each correction as a further success
    waiting    learns from labels alone that can change no more, a window late
    ours       as the naive one, with the weights of `training/online/delayed_feedback.py`

Each row is predicted before anything is learned of it and judged by what turned out to be true. `gap_closed` is the
share of what naive learning loses to the oracle (log loss) that is won back, on a stream of clicks: the rows that
delays are about. Beside it stands a stream of lists, where purchases go through clicks and most rows see none.
"""

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import torch

from bench.delay_world import DAY_MS, DELAY, Floats, Kind, Way, World, lived, told
from contract.settings import ModelConfig, TrainingConfig
from model.calibration import IDENTITY
from training.metrics.metrics import auc, log_loss, predicted_to_observed
from training.online.delayed_feedback import DelayedFeedback
from training.trainer.fit import FitResult, fit
from training.trainer.learner import Learner, predict, to_batch

AIM: Final = 0.6
LEVEL_MAX: Final = 0.03  # how far predicted to observed may be from 1
STEP_MS: Final = DAY_MS // 12
HISTORY_DAYS: Final = 10
UNJUDGED_DAYS: Final = 8  # until corrections come as they will from then on
SHAPE: Final = ModelConfig(
    architecture="shared_bottom", embedding=8, hidden=32, factors=4, experts=1, expert=32, rows=64
)
PLAN: Final = TrainingConfig(batch=512, epochs=4, learning_rate=0.003)
WAYS: Final[tuple[Way, ...]] = ("oracle", "naive", "waiting", "ours")
KINDS: Final[tuple[Kind, ...]] = ("clicks", "lists")
Figures = dict[str, float]


class Spread(msgspec.Struct, frozen=True):
    """A figure over seeds."""

    mean: float
    min: float
    max: float


class Summary(msgspec.Struct, frozen=True):
    """What came of one kind of stream."""

    ways: dict[Way, dict[str, Spread]]
    gap_closed: Spread
    gap_closed_by_waiting: Spread


class Answer(msgspec.Struct, frozen=True):
    """What is printed."""

    gap_closed: float
    streams: dict[Kind, Summary]
    seeds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Size:
    """How long a stream is judged, and how many rows it has a day."""

    days: int
    rows_a_day: int
    drift: float


def main(words: Sequence[str]) -> int:
    """Measure; 0: the gap closes as far as aimed at, and the level is right."""
    arguments, begun = parse(words), time.process_time()
    torch.set_num_threads(1)
    size = Size(arguments.days, max(1, round(4_000 * arguments.scale)), arguments.drift)
    found: dict[Kind, list[dict[Way, Figures]]] = {
        kind: [compared(kind, seed, size) for seed in range(arguments.seeds)] for kind in KINDS
    }
    streams = {kind: summary(runs) for kind, runs in found.items()}
    answer = Answer(
        gap_closed=streams["clicks"].gap_closed.mean,
        streams=streams,
        seeds=arguments.seeds,
        seconds=round(time.process_time() - begun, 1),
    )
    print(msgspec.json.encode(answer).decode())
    level = streams["clicks"].ways["ours"]["predicted_to_observed"].mean
    return 0 if answer.gap_closed >= AIM and abs(level - 1) <= LEVEL_MAX else 1


def compared(kind: Kind, seed: int, size: Size) -> dict[Way, Figures]:
    """The figures of each way on one stream."""
    history = lived(kind, 1_000 + seed, -HISTORY_DAYS, HISTORY_DAYS, size.rows_a_day, drift=size.drift)
    world = lived(kind, seed, 0, UNJUDGED_DAYS + size.days, size.rows_a_day, drift=size.drift)
    first = fit(history.final(np.arange(len(history.ts_ms))), SHAPE, PLAN, lambda epoch: None)
    found = {way: judged(world, followed(first, world, way)) for way in WAYS}
    say = ", ".join(f"{way} {figures['log_loss']:.5f}" for way, figures in found.items())
    print(f"{kind}, seed {seed}: log loss {say}", file=sys.stderr, flush=True)
    return found


def followed(first: FitResult, world: World, way: Way) -> Floats:
    """What a network says of each row's purchase (N,) before it has learned anything of it."""
    network = copy.deepcopy(first.network)
    for task in network.tasks:  # what is fitted once stays behind what goes on learning; here all are judged bare
        calibrator = network.calibrator(task)
        calibrator.set_values([IDENTITY[name] for name in calibrator.names])
    learner = Learner(network=network, plan=PLAN, state=first.optimizer)
    late = DelayedFeedback({"purchase": DELAY}) if way == "ours" else DelayedFeedback()
    examples, told_ms = told(world, way)
    edges = np.arange(0, int(world.ts_ms[-1]) + STEP_MS, STEP_MS)
    shown, ready, found = (
        np.searchsorted(world.ts_ms, edges),
        np.searchsorted(told_ms, edges),
        np.zeros(len(world.ts_ms)),
    )
    for at in range(len(edges) - 1):
        rows = np.arange(shown[at], shown[at + 1])
        found[rows] = predict(network, world.final(rows))["purchase"]
        new = examples.take(np.arange(ready[at], ready[at + 1]))
        if len(new):
            learner.train_step(late.weigh(network, to_batch(new), new, len(new)))
    return found


def judged(world: World, said: Floats) -> Figures:
    """What is said of purchases (N,), judged by what turned out to be true."""
    rows = world.ts_ms >= UNJUDGED_DAYS * DAY_MS
    rows &= world.ts_ms < world.ts_ms[-1] // STEP_MS * STEP_MS  # the last step is not whole
    y, p = world.buy[rows].astype(float), said[rows]
    return {"log_loss": log_loss(y, p), "auc": auc(y, p), "predicted_to_observed": predicted_to_observed(y, p)}


def summary(runs: Sequence[dict[Way, Figures]]) -> Summary:
    """Each way's figures over the seeds, and how much of what naive learning loses each of the others wins back."""
    ways = {way: {name: spread([run[way][name] for run in runs]) for name in runs[0][way]} for way in runs[0]}
    return Summary(
        ways, spread([closed(run, "ours") for run in runs]), spread([closed(run, "waiting") for run in runs])
    )


def closed(run: dict[Way, Figures], way: Way) -> float:
    loss = {name: figures["log_loss"] for name, figures in run.items()}
    return (loss["naive"] - loss[way]) / (loss["naive"] - loss["oracle"])


def spread(values: Sequence[float]) -> Spread:
    return Spread(*(round(float(of), 5) for of in (np.mean(values), min(values), max(values))))


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench delay", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON, which it prints anyway")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--days", type=int, default=18, help="that are judged; 18 are a cycle of the rate of purchases")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows a day")
    parser.add_argument("--drift", type=float, default=0.4, help="of the rate of purchases, in logits")
    return parser.parse_args(words)
