"""`python -m bench ledger`: score workers are killed by SIGKILL while events flow; then everything is counted.

On Apache Kafka and Redis, both lanes' workers are killed at seeded moments, in every step of the pipeline, and
restarted. At the end every order should have a decision, every click a scored row, every bad record a dead letter, all
copies of a decision should agree, and every profile should equal that of a plain oracle that folds the log.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.results.report import print_progress, print_result
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.score_worker_kills import KillPlan, KillRun


def main(argv: Sequence[str]) -> int:
    """Run on its own servers. 0: every promise was kept."""
    arguments = parse(argv)
    plan = KillPlan(orders=arguments.orders, clicks=arguments.clicks, kills=arguments.kills, seed=arguments.seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-ledger-")))
        kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
        environment = RunEnvironment(
            kafka=kafka, redis=redis, folder=folder, transactions=not arguments.no_transactions
        )
        outcome = KillRun(environment=environment, plan=plan, report=print_progress).run()
    print_result(outcome, as_json=arguments.json)
    return 0 if outcome.passed else 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench ledger", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200, help="number of kills over both lanes")
    parser.add_argument("--orders", type=int, default=10_000, help="minimum number of valid orders")
    parser.add_argument("--clicks", type=int, default=10_000, help="minimum number of valid clicks")
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the traffic and of the kills")
    parser.add_argument(
        "--no-transactions", action="store_true", help="publish first, commit afterwards: answers may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
