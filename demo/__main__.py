"""`python -m demo`: the whole system on one machine, or a real shop's log sent through Kafka.

python -m demo run [--keep] [--seed N]                                  everything from an empty start, in a minute
python -m demo replay --source online_retail --data PATH [--speed-up X] [--limit N]
"""

import argparse
import signal
import sys
from pathlib import Path

from contract.errors import BadConfig, ShopstreamError
from contract.logs import configure_logging
from contract.programs import name_program
from contract.settings.reading import read_settings
from contract.settings.worker import LogSettings

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 success, 1 a failure with its message, 2 invalid settings, 130 interrupted."""
    args = parse_arguments(arguments)
    # SIGTERM is handled like Ctrl-C, so that every child process is stopped in order. SIGINT is set too, because a
    # shell starts background jobs with SIGINT ignored.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    try:
        status: int = args.run(args)
        return status
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except ShopstreamError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything that was started has been stopped.", file=sys.stderr)
        return INTERRUPTED


def run_demo(args: argparse.Namespace) -> int:
    """Each command imports its own modules, so that it does not wait for the libraries of the other."""
    from demo.run import run

    configure_logging(LogSettings(), process="demo")
    return run(args.seed, keep=args.keep)


def run_replay(args: argparse.Namespace) -> int:
    from demo.replay import replay

    settings, _ = read_settings()
    configure_logging(settings.log, process="demo")
    return replay(settings, args.data, speed_up=args.speed_up, limit=args.limit)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of a command; `run` is its function."""
    parser = argparse.ArgumentParser(prog=name_program("demo"), description="The whole system on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser(
        "run", help="simulate a shop, train on its history, answer its live events, and train on the feedback"
    )
    run_parser.set_defaults(run=run_demo)
    run_parser.add_argument("--keep", action="store_true", help="keep everything running until Ctrl-C")
    run_parser.add_argument("--seed", type=int, default=7, help="seed of the simulated shop")
    replay_parser = commands.add_parser("replay", help="send a real shop's log to the Kafka of the settings")
    replay_parser.set_defaults(run=run_replay)
    replay_parser.add_argument("--source", choices=["online_retail"], required=True)
    replay_parser.add_argument("--data", type=Path, required=True, help="the source's Parquet file or its folder")
    replay_parser.add_argument(
        "--speed-up", type=float, default=0.0, help="speed relative to the log's own time; 0: as fast as possible"
    )
    replay_parser.add_argument("--limit", type=int, help="send only this many invoices")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
