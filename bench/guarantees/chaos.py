"""`python -m bench chaos`: seeded mixtures of faults while events flow; after each round every promise is audited.

On Apache Kafka and Redis, with workers of both lanes and joiners. A round has a dozen faults in a minute, one after
another and overlapping: processes killed, frozen and scaled in every step, Kafka and Redis away, paused, full, flushed
or set back, topics missing or recreated, poison, wrong clocks, erasures, new bundles. Then the faults are healed,
everything has to catch up, and is audited. A round that fails prints its seed, what differs, what each process waits
for and all stacks.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.results.report import print_progress, print_result
from testkit.chaos.catalogue import CHAOS_FAULTS
from testkit.chaos.chaos_run import ChaosRun
from testkit.chaos.outcome import ChaosPlan


def main(argv: Sequence[str]) -> int:
    """Run on its own servers. 0: every promise was kept, and everything caught up in time."""
    arguments = parse(argv)
    plan = ChaosPlan(
        minutes=arguments.minutes,
        seed=arguments.seed,
        faults=arguments.only or sorted(CHAOS_FAULTS),
        faults_per_round=arguments.faults_per_round,
        round_s=arguments.round_s,
        rounds_per_environment=arguments.rounds_per_environment,
        catch_up_s=arguments.catch_up_s,
        events_per_s=arguments.rate,
        workers_per_lane=arguments.workers,
        joiners=arguments.joiners,
    )
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="shopstream-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print_progress(f"logs of all processes: {folder}")
    outcome = ChaosRun(plan=plan, report=print_progress, folder=folder).run()
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="begin no round after this time")
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the traffic and of the faults")
    parser.add_argument(
        "--only", action="append", choices=sorted(CHAOS_FAULTS), help="only this fault; may be repeated"
    )
    parser.add_argument("--rate", type=float, default=150, help="orders and clicks per second")
    parser.add_argument("--workers", type=int, default=2, help="workers of each lane")
    parser.add_argument("--joiners", type=int, default=2, help="joiners")
    parser.add_argument("--faults-per-round", type=int, default=12, help="faults of a round")
    parser.add_argument("--round-s", type=float, default=60, help="seconds of faults before everything is healed")
    parser.add_argument("--rounds-per-environment", type=int, default=5, help="rounds before all servers are new")
    parser.add_argument("--catch-up-s", type=float, default=90, help="seconds for which nothing may stand still")
    parser.add_argument("--folder", type=Path, help="where the logs of all processes are kept")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
