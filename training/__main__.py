"""`python -m training`: examples in, model out.

python -m training fit DATA.parquet...                         train on examples, write a checkpoint
python -m training describe DATA.parquet                       profile examples: missing values, outliers, constants
python -m training evaluate DATA.parquet                       compare the network with single-task nets and LightGBM
python -m training affinity DATA.parquet                       which tasks' gradients agree and which conflict
python -m training search DATA.parquet...                      search hyper-parameters of the network and its training
python -m training score BUNDLE FILE                           score the rows of a Parquet or CSV file
python -m training follow [--once]                             learn incrementally from the feedback topic, publish
python -m training compare [--since HOURS]                     compare a model on trial with the serving model
python -m training offpolicy BUNDLE                            estimate what a new ranking would have earned
python -m training watch [--once]                              monitor the serving model; roll back a worse one
python -m training skew [--share SHARE]                        compare served features with those of the log
python -m training history [KIND=]FILE... --out HISTORY        check, sort and join a shop's files of events
python -m training replay HISTORY... --out DATA.parquet        make examples from historic events
"""

import argparse
import faulthandler
import sys
import threading
from importlib import import_module
from typing import Final

from contract.errors import BadBundle, BadConfig, BadData, Unavailable
from contract.logs import configure_logging
from contract.programs import name_program
from contract.settings.reading import read_settings
from contract.shutdown import Shutdown

PROCESSES: Final = {"follow": "learner", "watch": "monitor"}  # the commands that run until a signal
COMMANDS: Final = {
    "fit": "train on examples and write a checkpoint",
    "describe": "profile examples: missing values, outliers, constant columns",
    "evaluate": "compare the network with single-task nets and LightGBM",
    "affinity": "measure which tasks' gradients agree during training, and which conflict",
    "score": "score the rows of a Parquet or CSV file with a bundle",
    "search": "search hyper-parameters of the network and its training",
    "follow": "learn incrementally from the feedback topic, and publish",
    "compare": "compare a model on trial with the serving model",
    "offpolicy": "estimate what a new ranking would have earned, from logs with propensities",
    "watch": "monitor the serving model, and roll back a worse one",
    "skew": "compare served features with those recomputed from the log, value for value",
    "history": "check a shop's files of events, and write them as one sorted history",
    "replay": "make examples from historic events",
}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 bad data or model, 2 wrong settings or arguments, 3 update rejected or estimate refused.

    4: frozen; 5: given up after a signal.
    """
    args = parse_arguments(arguments)
    shutdown = Shutdown(threading.Event())
    if args.command in PROCESSES and not args.once:
        shutdown.install()
        args.stop = shutdown.stop
    return shutdown.finish(run_reporting_errors(args, shutdown))


def run_reporting_errors(args: argparse.Namespace, shutdown: Shutdown) -> int:
    """Run a command; returns its exit code."""
    try:
        settings, features = read_settings()
        shutdown.limit_s = settings.worker.stop_s
        configure_logging(settings.log, process=PROCESSES.get(args.command, "training"))
        status: int = args.run(args, settings, features)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData, Unavailable) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"Files should be readable, and folders that are written to writable. Found: {error}.", file=sys.stderr)
        return 2
    return status


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments, with `run` of the command's module, which is imported alone: torch takes seconds to load."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog=name_program("training"), description="Examples in, model out.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary)
        if name in words[:1]:
            command = import_module(f"training.commands.{name}")
            command.add_arguments(subparser)
            subparser.set_defaults(run=command.run)
    return parser.parse_args(words)


if __name__ == "__main__":
    faulthandler.enable()  # a fault in a library ends the process; the stacks on stderr say where
    raise SystemExit(main())
