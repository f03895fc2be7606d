"""`python -m bench NAME`: figures and proofs, each printed by a command; `--help` after the name tells its options."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Final

BENCHES: Final = {
    "fold": "what remembering an event costs, beside a plain loop over dictionaries",
    "memory": "bytes in Redis for each entity, beside the formula, and what might make profiles grow",
    "ledger": "workers die by SIGKILL while events flow; nothing is lost, nothing contradicts, profiles are exact",
    "state": "two workers meet every fault of the log, of Redis and of the group; profiles are exact, answers agree",
    "join": "the joiner dies by SIGKILL while a shop goes on; every label is joined once, with the features as served",
    "erasure": "people are erased while events flow: how long until they are gone, and whether they stay so",
    "census": "the multi-task network on Census-Income, beside single-task nets and LightGBM",
    "calibration": "whether probabilities say what happens, for each task, on the simulated shop",
    "gate": "harmful updates of many kinds are refused, healthy ones are not",
    "delay": "purchases that come days late: how much of what they cost who learns at once, weights give back",
    "export": "graphs beside the network that they are of: how far apart, how much faster, what splitting is worth",
    "fraud": "four weeks of card payments with truths seven days late, beside LightGBM and a network without profiles",
    "balance": "ways of balancing tasks, on Census-Income and on the simulated shop: mean ranks and the cost of a step",
    "throughput": "events a second of one worker process and their CPU, beside a bare and a naive loop",
    "latency": "how old an event is when its decision is out and its list in Redis, beside a bare loop",
    "scale": "one, two and four workers on a queue of a million events: what an event costs, what a worker holds",
    "catalogue": "a worker of a million items: how long until it is ready, in how much memory, also during a swap",
    "learning": "what learning on is worth where the world changes, beside a frozen model and a daily retrain",
    "swap": "models are swapped under load: nothing lost, no batch mixed, how long work stands still, label to serving",
    "recommend": "lists as they are cached, on two real shops, beside popularity, co-occurrence and a library",
    "drift": "how rare false alarms of drift are, beside what was asked for, and how soon a shift is found",
    "rollback": "how often a sound bundle is taken back, and how soon a harmful one",
    "replay": "the whole of Online Retail through Kafka, workers and Redis; each order answered or dead for its reason",
}


def main(argv: Sequence[str]) -> int:
    """Run the named bench with the rest of the words; 0: it showed what it promises, 1: not so, 2: no such bench."""
    if not argv or argv[0] not in BENCHES:
        is_help = bool(argv) and argv[0] in ("-h", "--help")
        print("python -m bench NAME, where NAME is one of\n", file=sys.stdout if is_help else sys.stderr)
        for name, description in BENCHES.items():
            print(f"    {name:10} {description}", file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    run: Callable[[Sequence[str]], int] = import_module(f"bench.{argv[0]}").main
    return run(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
