"""`python -m demo`: the whole system on one machine, or a real shop's log through Kafka.

python -m demo run [--keep] [--seed N]                                  everything, from nothing, in a minute
python -m demo replay --source online_retail --data PATH [--speed-up X] [--limit N]
"""

import argparse
import signal
import sys
from pathlib import Path

from contract.errors import BadConfig, ShopstreamError
from contract.logs import configure_logging
from contract.settings import LogSettings, read_settings

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 something failed and says why, 2 wrong settings, 130 interrupted."""
    args = parse_arguments(arguments)
    # A request to end is taken like Ctrl-C, so that everything started is stopped in good order; and so is Ctrl-C
    # itself, which a shell that starts us in the background has told us to ignore.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    try:
        return run(args)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except ShopstreamError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything that was started has been stopped.", file=sys.stderr)
        return INTERRUPTED


def run(args: argparse.Namespace) -> int:
    """Each command imports what it needs, so that none waits for the other's libraries."""
    if args.command == "run":
        from demo.run import run as run_demo

        configure_logging(LogSettings(), process="demo")
        return run_demo(args.seed, keep=args.keep)
    from demo.replay import replay

    settings, _ = read_settings()
    configure_logging(settings.log, process="demo")
    return replay(settings, args.data, speed_up=args.speed_up, limit=args.limit)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole system on one machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser(
        "run", help="a simulated shop, from its history to a model that has learned from us"
    )
    run_parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    run_parser.add_argument("--seed", type=int, default=7, help="which shop")
    replay_parser = commands.add_parser("replay", help="send a real shop's log through the settings' Kafka")
    replay_parser.add_argument("--source", choices=["online_retail"], required=True)
    replay_parser.add_argument("--data", type=Path, required=True, help="the source's Parquet file or its folder")
    replay_parser.add_argument(
        "--speed-up", type=float, default=0.0, help="how many times as fast as it was; 0: no waiting"
    )
    replay_parser.add_argument("--limit", type=int, help="the first so many invoices alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
