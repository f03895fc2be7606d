"""`python -m training`: examples in, model out.

python -m training fit DATA.parquet                            learn from examples, keep a checkpoint
python -m training follow [--once]                             go on learning from the feedback topic, publish
python -m training replay EVENTS.jsonl... --out DATA.parquet   examples from events of before the first log
"""

import argparse
import sys
from pathlib import Path

from contract.errors import BadBundle, BadConfig, BadData, Unavailable
from contract.settings import read_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 data or a model at fault, 2 wrong settings or arguments, 3 an update refused."""
    args = parse(arguments)
    try:
        settings, features = read_settings()
        # torch takes seconds to load, and wrong arguments or settings should not have to wait for it.
        from training import commands

        return {"fit": commands.fit_command}[args.command](args, settings, features)
    except BadConfig as error:
        print(*error.errors, sep="\n", file=sys.stderr)
        return 2
    except (BadBundle, BadData, Unavailable) as error:
        print(error, file=sys.stderr)
        return 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description="Examples in, model out.")
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", help="learn from examples and keep a checkpoint")
    fit.add_argument("data", type=Path, help="examples as Parquet")
    fit.add_argument("--interactions", type=Path, action="append", default=[], help="more (user_id, item_id, ts_ms)")
    fit.add_argument("--epochs", type=int, help="passes over the data, in place of the settings' own")
    fit.add_argument("--seed", type=int, help="the seed, in place of the settings' own")
    fit.add_argument("--bundles", type=Path, help="the folder of bundles, in place of the settings' own")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
