"""`python -m bench poison`: records of every odd kind, and a million mutated ones, on every topic of events.

First in this process, through the code that a worker's batch runs, for shops of several kinds: one by the defaults,
one that declares units, rates, tasks and entities of its own, one whose topics are read by maps, and one with a schema
registry (where its packages are installed). No record should raise an error that is not caught; each should become an
event that is answered, or a dead letter with a reason and its place. Then on Apache Kafka and Redis, with workers of
both lanes and a joiner as processes: the corpus and mutated records between good ones. No process should end, every
record should be answered or a dead letter, and good records should be answered at least at 0.9 of their speed where
one of a hundred records is odd.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.intake_check import BATCH_RECORDS, Findings, ShopIntake
from bench.guarantees.poison.live_run import LiveOutcome, LiveRun
from bench.guarantees.poison.mutations import Mutator
from bench.guarantees.poison.record_forms import OddRecord
from bench.guarantees.poison.shops import make_shops
from bench.results.report import print_missed, print_progress, print_result
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment

KINDS_MIN: Final = 150
CLEAN_SHARE_MIN: Final = 0.9
ROUND_RECORDS: Final = 50_000  # after which every shop is created again, so that its profiles and items stay few


class PoisonOutcome(msgspec.Struct, kw_only=True):
    """`kinds`: of odd records on the topic that has the fewest. `records`: all that were read in this process.

    `unanswered`: neither answered nor dead letters with a reason and a place; `unscored`: events that got no answer
    because scoring them failed. `live`: the run with processes. `load`: of the machine, at the begin and the end.
    """

    kinds: int = 0
    kinds_in_all: int = 0
    records: int = 0
    mutated: int = 0
    uncaught: int = 0
    restarts: int = 0
    unanswered: int = 0
    unscored: int = 0
    clean_share: float | None = None
    seed: int = 0
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    reasons: dict[str, int] = msgspec.field(default_factory=dict)
    live: LiveOutcome | None = None
    load: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    def list_missed(self) -> Iterator[str]:
        """The missed aims, as sentences."""
        if self.kinds < KINDS_MIN:
            yield f"At least {KINDS_MIN} kinds of odd records should be on each topic. Found {self.kinds}."
        for name in ("uncaught", "restarts", "unanswered", "unscored"):
            if count := getattr(self, name):
                yield f"`{name}` should be 0. Found {count}."
        if self.clean_share is not None and self.clean_share < CLEAN_SHARE_MIN:
            yield f"`clean_share` should be at least {CLEAN_SHARE_MIN}. Found {self.clean_share}."


def main(argv: Sequence[str]) -> int:
    """Run on its own servers. 0: every aim is met."""
    arguments = parse(argv)
    begin_s, load = time.monotonic(), os.getloadavg()[0]
    corpus = list(make_corpus())
    outcome = PoisonOutcome(seed=arguments.seed, mutated=arguments.records)
    outcome.kinds, outcome.kinds_in_all = count_kinds(corpus)
    print_progress(f"seed {arguments.seed}; {len(corpus)} records of {outcome.kinds_in_all} kinds")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shopstream-poison-")))
        check_intake(outcome, corpus, folder)
        if not arguments.no_servers:
            kafka, redis = stack.enter_context(ApacheKafka()), stack.enter_context(RedisServer())
            environment = RunEnvironment(kafka=kafka, redis=redis, folder=folder)
            outcome.live = LiveRun(
                environment=environment,
                seed=arguments.seed,
                mutated=arguments.sent,
                pairs=arguments.pairs,
                backlog=arguments.backlog,
                report=print_progress,
            ).run()
            outcome.restarts, outcome.clean_share = outcome.live.restarts, outcome.live.clean_share
            outcome.unanswered += outcome.live.unanswered
    outcome.load = round(load, 1), round(os.getloadavg()[0], 1)
    outcome.seconds = round(time.monotonic() - begin_s, 1)
    is_missed = print_missed(outcome.list_missed())
    print_result(outcome, as_json=arguments.json)
    return 1 if is_missed else 0


def count_kinds(corpus: Sequence[OddRecord]) -> tuple[int, int]:
    """The number of kinds on the topic that has the fewest, and of all."""
    by_topic: dict[str, set[str]] = {}
    for record in corpus:
        by_topic.setdefault(record.kind, set()).add(record.form)
    return min(map(len, by_topic.values())), len(set().union(*by_topic.values()))


def check_intake(outcome: PoisonOutcome, corpus: Sequence[OddRecord], folder: Path) -> None:
    """The corpus in every shop, then `outcome.mutated` records, each batch in one shop after the other."""
    findings, mutator = Findings(), Mutator(outcome.seed)
    with without_log():
        for shop in open_shops(findings, folder):
            for begin in range(0, len(corpus), BATCH_RECORDS):
                shop.check(corpus[begin : begin + BATCH_RECORDS])
        print_progress(f"the corpus in every shop: {findings.records} records, {findings.uncaught} errors not caught")
        for begin in range(0, outcome.mutated, ROUND_RECORDS):
            shops, end = open_shops(findings, folder), min(begin + ROUND_RECORDS, outcome.mutated)
            for number, batch_begin in enumerate(range(begin, end, BATCH_RECORDS)):
                shops[number % len(shops)].check(list(mutator.make(min(BATCH_RECORDS, end - batch_begin))))
            print_progress(f"{end:,} mutated records: {findings.uncaught} errors not caught")
    for sentence in findings.faults.values():
        print_progress(sentence)
    outcome.records, outcome.uncaught = findings.records, findings.uncaught
    outcome.unanswered, outcome.unscored = findings.unanswered, findings.unscored
    outcome.outcomes, outcome.reasons = dict(findings.outcomes), dict(findings.reasons.most_common())


def open_shops(findings: Findings, folder: Path) -> list[ShopIntake]:
    return [ShopIntake(shop, Path(tempfile.mkdtemp(dir=folder)), findings) for shop in make_shops(folder)]


@contextmanager
def without_log() -> Iterator[None]:
    """Nothing is logged: each unreadable record would be a line."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench poison", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000, help="mutated records that are read in this process")
    parser.add_argument("--sent", type=int, default=20_000, help="mutated records that are sent to Kafka")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of backlogs of which the speeds are compared")
    parser.add_argument("--backlog", type=int, default=6_000, help="good records of a backlog")
    parser.add_argument("--no-servers", action="store_true", help="read in this process only")
    parser.add_argument("--seed", type=int, default=20111209, help="seed of the mutations")
    parser.add_argument("--json", action="store_true", help="print the outcome as one line of JSON, the last one")
    return parser.parse_args(argv)
