"""The worker's commands: `score`, `feedback`, `topics`, `doctor`, `map`, `features`, and those of kept state."""

import argparse
import faulthandler
import logging
import signal
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from contract.errors import BadConfig, ShopstreamError
from contract.features.declaration import FeatureSet
from contract.logs import configure_logging
from contract.profiles.record import FAMILIES
from contract.programs import name_program
from contract.settings.reading import Settings, read_settings
from contract.shutdown import Shutdown
from worker.ops.denied_rights import Grants, explain_denied
from worker.records.lanes import LANES

log = logging.getLogger("worker")
LONG_RUNNING: Final = ("score", "feedback", "rebuild", "bootstrap")  # a signal stops these gracefully
PROCESSES: Final = {"score": "score worker", "feedback": "joiner"}


def main() -> int:
    """Run one command; the exit statuses are listed in docs/operations.md."""
    arguments = parse()
    faulthandler.enable()  # a fault in a client library ends the process; the stacks on stderr say where
    faulthandler.register(signal.SIGUSR2)  # a process that stands still shows where, without being ended
    shutdown = Shutdown(threading.Event())
    if arguments.command in LONG_RUNNING:
        shutdown.install()
    return shutdown.finish(run_reporting_errors(arguments, shutdown))


def run_reporting_errors(arguments: argparse.Namespace, shutdown: Shutdown) -> int:
    """0: ended as asked, 1: ended by a failure, 2: the settings are wrong, all errors listed."""
    settings = None
    try:
        settings, features = read_settings()
        shutdown.limit_s = settings.worker.stop_s
        configure_logging(
            settings.log,
            process=PROCESSES.get(arguments.command, arguments.command),
            lane=getattr(arguments, "lane", None),
            instance=settings.worker.instance if arguments.command in PROCESSES else None,
        )
        return run(arguments, settings, features, shutdown.stop)
    except BadConfig as error:
        for sentence in error.errors:
            print(f"Configuration: {sentence}", file=sys.stderr)
        return 2
    except ShopstreamError as error:
        remedy = explain_denied(str(error), {}, Grants.of(settings.kafka)) if settings else None
        log.critical("Ending: %s", remedy or error)
        return 1


def run(arguments: argparse.Namespace, settings: Settings, features: FeatureSet, stop: threading.Event) -> int:
    """Run a command; each imports its own libraries, so that none waits for those of the others."""
    match arguments.command:
        case "score":
            return run_score_worker(arguments, settings, features, stop)
        case "feedback":
            from worker.joiner.worker import JoinerWorker

            JoinerWorker(settings=settings, stop=stop).run()
        case "topics":
            from worker.doctor.topic_checks import build_configs
            from worker.kafka.admin import KafkaAdmin

            admin, configs = KafkaAdmin(kafka=settings.kafka), build_configs(settings)
            created = admin.create_topics(settings.topics, arguments.replication, configs)
            print(f"Created {len(created)} topics: {', '.join(created) or 'all exist already'}.")
        case "doctor":
            from worker.doctor.examination import run_doctor

            lanes = {name: lane.kinds for name, lane in LANES.items()}
            return run_doctor(settings, features, lanes, as_json=arguments.json)
        case "map":
            from worker.mapping.trial import try_map

            return try_map(settings, arguments.source, arguments.map, arguments.count, as_json=arguments.json)
        case "features":
            from worker.maintenance.feature_list import print_list

            return print_list(features, settings.entity_kinds(), arguments.word, as_json=arguments.json)
        case _:
            return run_state_command(arguments, settings, stop)
    return 0


def run_state_command(arguments: argparse.Namespace, settings: Settings, stop: threading.Event) -> int:
    """Run a command on the profiles in Redis."""
    match arguments.command:
        case "verify":
            from worker.maintenance.verification import EntitySample, verify

            sample = EntitySample() if arguments.all else EntitySample(arguments.share, arguments.part)
            return verify(settings, sample, arguments.kinds)
        case "rebuild":
            from worker.maintenance.rebuild import collect_garbage, rebuild

            if arguments.collect or arguments.retire:
                return collect_garbage(settings, retires=arguments.retire)
            return rebuild(settings, arguments.start, accepts_loss=arguments.accept_loss, stop=stop)
        case "bootstrap":
            from worker.maintenance.bootstrap import bootstrap

            return bootstrap(settings, arguments.history, arguments.until, accepts_gap=arguments.accept_gap, stop=stop)
        case "profile":
            from worker.maintenance.profile_report import print_profile

            return print_profile(settings, arguments.kind, arguments.id, arguments.at)
    return 0


def run_score_worker(
    arguments: argparse.Namespace, settings: Settings, features: FeatureSet, stop: threading.Event
) -> int:
    from worker.ops.steps import PROFILER
    from worker.score_worker import ScoreWorker

    ScoreWorker(settings=settings, features=features, lane=arguments.lane, stop=stop).run()
    if arguments.profile:
        print("\n".join(PROFILER.format_table()), flush=True)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=name_program("worker"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    score = commands.add_parser("score", help="answer the events of one lane")
    score.add_argument("--lane", choices=sorted(LANES), required=True)
    score.add_argument("--profile", action="store_true", help="print where the time of a batch went, at the end")
    commands.add_parser("feedback", help="join scored rows with the events that label them into training examples")
    topics = commands.add_parser("topics", help="create the topics that do not exist yet")
    topics.add_argument("--replication", type=int, default=1, help="copies of each partition")
    doctor = commands.add_parser("doctor", help="check servers, rights and bundle; status 1 if there is an error")
    doctor.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    add_map(commands)
    sources = commands.add_parser("features", help="list every source that a feature can read")
    sources.add_argument("action", choices=["list"])
    sources.add_argument("word", nargs="?", default="", help="list only sources with this in their name")
    sources.add_argument("--json", action="store_true", help="print a list of objects instead of lines")
    add_rebuild(commands)
    add_bootstrap(commands)
    add_state_commands(commands)
    return parser.parse_args()


def add_map(commands: Any) -> None:
    actions = commands.add_parser("map", help="maps of records in a form of your own").add_subparsers(required=True)
    trial = actions.add_parser("try", help="show what a map reads of records; status 1 if any would be a dead letter")
    trial.add_argument("source", metavar="FILE|TOPIC", help="a file of JSON, one record a line, or a topic's name")
    trial.add_argument("--map", help="the map to use, where the settings have several")
    trial.add_argument("--count", type=int, default=10, help="records to read at most (10)")
    trial.add_argument("--json", action="store_true", help="print a list of objects instead of a table")


def add_rebuild(commands: Any) -> None:
    rebuild = commands.add_parser(
        "rebuild", help="rebuild profiles from Kafka into a new generation, then switch to it"
    )
    rebuild.add_argument(
        "--from", dest="start", type=parse_start, metavar="TIME", help="`beginning` (default), or a time"
    )
    rebuild.add_argument(
        "--accept-loss", action="store_true", help="rebuild even if Kafka retention has deleted the first records"
    )
    cleanup = rebuild.add_mutually_exclusive_group()
    cleanup.add_argument("--collect", action="store_true", help="delete what earlier rebuilds left, then exit")
    cleanup.add_argument("--retire", action="store_true", help="also delete generations of other key layouts")


def add_bootstrap(commands: Any) -> None:
    bootstrap = commands.add_parser("bootstrap", help="build profiles from a history, then go on with the topics")
    bootstrap.add_argument("history", type=Path, help="the folder that `python -m training history` wrote")
    bootstrap.add_argument(
        "--until",
        type=datetime.fromisoformat,
        metavar="TIME",
        help="leave out events of the history at or after this time",
    )
    bootstrap.add_argument(
        "--accept-gap",
        action="store_true",
        help="go on even if Kafka retention has deleted records that are later than the history",
    )


def parse_start(text: str) -> datetime | None:
    """The time from which a state is built; None: the beginning of its logs."""
    if text == "beginning":
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"A start should be `beginning` or a time as 2026-11-25T20:00. Found {text}."
        ) from error


def add_state_commands(commands: Any) -> None:
    """Commands that read the state and change nothing."""
    verify = commands.add_parser("verify", help="compare profiles with what their log gives")
    verify.add_argument("--share", type=parse_share, default=0.1, help="share of entities to verify, by hash (0.1)")
    verify.add_argument("--part", type=int, default=0, help="index of the sample to verify (0 ... 1/share - 1)")
    verify.add_argument("--all", action="store_true", help="verify every entity")
    verify.add_argument("--kinds", type=parse_kinds, default=FAMILIES, help="kinds of events, separated by commas")
    profile = commands.add_parser("profile", help="print the profile of one entity")
    profile.add_argument("kind", help="user, device, ip, card, item, seller, or one of [entities]")
    profile.add_argument("id")
    profile.add_argument("--at", type=datetime.fromisoformat, help="the time at which windows end (default: now)")


def parse_share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"A share should be above 0 and at most 1. Found {text}.")
    return value


def parse_kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if unknown := set(kinds) - set(FAMILIES):
        raise argparse.ArgumentTypeError(f"Kinds should be among {', '.join(FAMILIES)}. Found {sorted(unknown)}.")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
