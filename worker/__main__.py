"""The worker's commands: `score` a lane, join `feedback`, create `topics`."""

import argparse
import logging
import signal
import sys
import threading

from contract.errors import BadConfig, ShopstreamError
from contract.settings import read_settings
from worker.lanes import LANES

log = logging.getLogger("worker")


def main() -> int:
    """Run one command; 0: ended as asked, 1: ended by a failure, 2: the settings are wrong, all errors listed."""
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
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
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="answer the events of one lane")
    score.add_argument("--lane", choices=sorted(LANES), required=True)
    commands.add_parser("feedback", help="join scored rows with what happened into examples")
    topics = commands.add_parser("topics", help="create the topics that do not exist yet")
    topics.add_argument("--replication", type=int, default=1, help="copies of each partition")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
