"""`python -m bench NAME`: runs one bench; `python -m bench NAME --help` lists its options."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Final, NamedTuple, TextIO


class Bench(NamedTuple):
    """One bench: its module below `bench`, and what it measures."""

    module: str
    description: str

    def load(self) -> ModuleType:
        """Import the module; it has `main(argv) -> int` and `parse(argv)`."""
        return import_module(f"bench.{self.module}")


BENCHES: Final = {
    "fold": Bench(
        "performance.fold", "cost of updating the profiles of one event, compared with a plain loop over dictionaries"
    ),
    "map": Bench(
        "performance.mapping", "time of a mapped nested order, of Avro and of Protobuf, compared with our own JSON"
    ),
    "memory": Bench(
        "performance.memory",
        "bytes in Redis per entity, compared with the formula, and inputs that could make profiles grow",
    ),
    "ledger": Bench(
        "guarantees.ledger",
        "score workers are killed while events flow: no answer is lost or contradicted, profiles stay exact",
    ),
    "state": Bench(
        "guarantees.state",
        "two workers meet every fault of Kafka, Redis and the consumer group: profiles stay exact, answers agree",
    ),
    "verify": Bench(
        "guarantees.verify",
        "`worker verify` under traffic: no mismatch that is none, and every injected error is found",
    ),
    "join": Bench(
        "guarantees.join",
        "the joiner is killed while a shop runs: each label is joined once, to the features as served",
    ),
    "chaos": Bench(
        "guarantees.chaos",
        "seeded mixtures of fifty kinds of faults while events flow: after each round every promise is audited",
    ),
    "poison": Bench(
        "guarantees.poison.command",
        "odd records of every kind and a million mutated ones: each is answered or a dead letter, and no process ends",
    ),
    "join-scale": Bench(
        "performance.join_scale",
        "one, two and four joiners: cost per record; waiting rows: bytes in memory and on disk, time of a restart",
    ),
    "erasure": Bench(
        "guarantees.erasure",
        "users are erased while events flow: time until their data is gone, and whether it stays gone",
    ),
    "census": Bench(
        "quality.census.command",
        "the multi-task network on Census-Income, compared with single-task networks and LightGBM",
    ),
    "small-data": Bench(
        "quality.small_data.command",
        "stock settings on real tables of 40,000 rows, compared with fixed defaults and LightGBM on the same features",
    ),
    "stranger": Bench(
        "quality.stranger.command",
        "tables never seen before, served live by the tutorial's steps, compared with scikit-learn's gradient boosting",
    ),
    "calibration": Bench("quality.calibration", "calibration of each task's probabilities on the simulated shop"),
    "gate": Bench("quality.gate.command", "promotion gate: harmful updates of many kinds are refused, sound ones pass"),
    "delay": Bench(
        "quality.delayed_feedback.command",
        "delayed feedback: share of the loss from late purchases that importance weights recover",
    ),
    "export": Bench(
        "performance.export", "ONNX graphs compared with their network: difference, speed-up, gain of splitting"
    ),
    "fraud": Bench(
        "quality.fraud.command",
        "four weeks of card payments, labels seven days late, compared with LightGBM and a network without profiles",
    ),
    "balance": Bench(
        "quality.loss_balancing.command",
        "loss balancing methods on Census-Income and the simulated shop: mean ranks and cost of a step",
    ),
    "throughput": Bench(
        "performance.throughput",
        "events per second and CPU of one worker process, compared with a bare and a naive loop",
    ),
    "latency": Bench(
        "performance.latency",
        "age of an event when its decision is published and its list is in Redis, compared with a bare loop",
    ),
    "lists": Bench(
        "performance.lists",
        "lists that one core makes in a second, and the age of lists while 2,000 users click in a second",
    ),
    "scale": Bench(
        "performance.scale",
        "one, two and four workers on a queue of a million events: cost per event, memory per worker",
    ),
    "catalogue": Bench(
        "performance.catalogue", "a worker with a million items: time until ready and memory, also during a swap"
    ),
    "retrieval": Bench(
        "performance.retrieval",
        "items nearest to users among up to a million: time and recall of the index, compared with the exact product",
    ),
    "learning": Bench(
        "quality.online_learning.command",
        "gain of incremental training under drift, compared with a frozen model and a daily retrain",
    ),
    "swap": Bench(
        "performance.swap",
        "bundle swaps under load: no event lost, no mixed batch, pause per swap, time from label to serving",
    ),
    "recommend": Bench(
        "quality.recommend.command",
        "recommendation lists on two real shops, compared with popularity, co-occurrence and a library",
    ),
    "abuse-of-lists": Bench(
        "quality.abuse_of_lists",
        "rank in popular and trending lists that accounts reach by clicking an item again and again",
    ),
    "offpolicy": Bench(
        "quality.offpolicy.command",
        "estimates of another policy's reward compared with the truth, on simulated logs and on a shop's",
    ),
    "drift": Bench(
        "quality.drift", "false alarm rate of the drift tests compared with alpha, and time until a shift is detected"
    ),
    "rollback": Bench("quality.rollback", "how often a sound bundle is rolled back, and how soon a harmful one"),
    "bootstrap": Bench(
        "performance.bootstrap",
        "a shop's files to history, profiles, model and first list: time, memory, profiles equal to the workers'",
    ),
    "replay": Bench(
        "performance.replay",
        "all of Online Retail through Kafka, workers and Redis: each order is answered or dead-lettered",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run the named bench with the remaining words. 0: its aims are met; 1: they are not; 2: no such bench."""
    if argv and argv[0] in BENCHES:
        run: Callable[[Sequence[str]], int] = BENCHES[argv[0]].load().main
        return run(argv[1:])
    is_help = bool(argv) and argv[0] in ("-h", "--help")
    print_help(sys.stdout if is_help else sys.stderr)
    return 0 if is_help else 2


def print_help(output: TextIO) -> None:
    print("python -m bench NAME, where NAME is one of\n", file=output)
    for name, bench in BENCHES.items():
        print(f"    {name:14} {bench.description}", file=output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
