"""The worker's commands: `score` a lane, join `feedback`, create `topics`, `verify` the state, show a `profile`."""

import argparse
import logging
import signal
import sys
import threading
from datetime import datetime
from typing import Any

from contract.errors import BadConfig, ShopstreamError
from contract.profiles import ENTITY_KINDS, FAMILIES
from contract.settings import read_settings
from worker.lanes import LANES

log = logging.getLogger("worker")
LASTING = ("score", "feedback")  # these go on until a signal asks them to end in good order


def main() -> int:
    """Run one command; 0: ended as asked, 1: ended by a failure, 2: the settings are wrong, all errors listed."""
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    if arguments.command in LASTING:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    try:
        return run(arguments, stop)
    except BadConfig as error:
        for sentence in error.errors:
            print(f"Configuration: {sentence}", file=sys.stderr)
        return 2
    except ShopstreamError as error:
        log.critical("Ending: %s", error)
        return 1


def run(arguments: argparse.Namespace, stop: threading.Event) -> int:
    """Each command imports what it needs, so that none waits for the others' libraries."""
    settings, features = read_settings()
    match arguments.command:
        case "score":
            from worker.score import ScoreWorker

            ScoreWorker(settings=settings, features=features, lane=arguments.lane, stop=stop).run()
        case "feedback":
            from worker.feedback import FeedbackWorker

            FeedbackWorker(settings=settings, stop=stop).run()
        case "topics":
            from worker.broker import Broker

            created = Broker(kafka=settings.kafka).create(settings.topics, arguments.replication)
            print(f"Created {len(created)} topics: {', '.join(created) or 'all were there'}.")
        case "verify":
            from worker.verification import Sample, verify

            sample = Sample() if arguments.all else Sample(arguments.share, arguments.part)
            return verify(settings, sample, arguments.kinds)
        case "profile":
            from worker.portrait import show

            return show(settings, arguments.kind, arguments.id, arguments.at)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="answer the events of one lane")
    score.add_argument("--lane", choices=sorted(LANES), required=True)
    commands.add_parser("feedback", help="join scored rows with what happened into examples")
    topics = commands.add_parser("topics", help="create the topics that do not exist yet")
    topics.add_argument("--replication", type=int, default=1, help="copies of each partition")
    add_inspections(commands)
    return parser.parse_args()


def add_inspections(commands: Any) -> None:
    """What looks at the state and changes nothing."""
    verify = commands.add_parser("verify", help="compare profiles with what their log makes of them")
    verify.add_argument("--share", type=share, default=0.1, help="of all entities, by their hash (0.1)")
    verify.add_argument("--part", type=int, default=0, help="which share: 0, 1, ... together are all")
    verify.add_argument("--all", action="store_true", help="every entity, at once")
    verify.add_argument("--kinds", type=families, default=FAMILIES, help="of events, with commas between them")
    profile = commands.add_parser("profile", help="show what is remembered of one entity")
    profile.add_argument("kind", choices=ENTITY_KINDS)
    profile.add_argument("id")
    profile.add_argument("--at", type=datetime.fromisoformat, help="the time at which windows end, by default now")


def share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"A share should be above 0 and at most 1. Found {text}.")
    return value


def families(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := set(kinds) - set(FAMILIES):
        raise argparse.ArgumentTypeError(f"Kinds should be among {', '.join(FAMILIES)}. Found {sorted(unknown)}.")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
