"""`python -m bench join`: the joiner is killed by SIGKILL again and again while a shop runs; then all is counted.

On Apache Kafka, scored rows, impressions, clicks, orders and labels of five days are produced portion by portion: some
late, early, duplicated, of another user, or for an order that never existed. At the end every label that came inside
its window should be in an example with the features as served, nothing should be published twice or too early, and the
joiner's own count of orphans (`shopstream_orphan_labels`, carried over restarts) should equal the simulator's.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.results.report import print_progress, print_result
from devservers.apache_kafka import ApacheKafka
from testkit.joiner.joiner_kills import JoinerKillPlan, JoinerKillRun


def main(argv: Sequence[str]) -> int:
    """Run on its own broker. 0: every promise was kept and every example is correct in the end."""
    arguments = parse(argv)
    plan = JoinerKillPlan(
        events=round(arguments.events * arguments.scale),
        kills=arguments.kills,
        seed=arguments.seed,
        joiners=arguments.joiners,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-join-")))
        kafka = stack.enter_context(ApacheKafka())
        run = JoinerKillRun(kafka=kafka, plan=plan, folder=folder, report=print_progress)
        outcome = run.run()
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed and not run.wrong_examples else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000, help="minimum number of input records")
    parser.add_argument("--kills", type=int, default=6, help="number of kills")
    parser.add_argument(
        "--joiners", type=int, default=1, help="number of joiners; several are suspended and lose shards too"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of events")
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the simulated shop and of the kills")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
