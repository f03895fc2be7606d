"""The installed command `shopstream`: every program of the project, from any folder.

shopstream init [FOLDER]      write a first shop.toml and features.toml
shopstream worker ...         the same as python -m worker ...
shopstream training ...       the same as python -m training ...
shopstream export ...         the same as python -m export ...
shopstream demo ...           the same as python -m demo ...
"""

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from shopstream.starter_files import write_starter_files

PROGRAMS: Final = ("worker", "training", "export", "demo")
COMMANDS: Final = ("init", *PROGRAMS)
EXTRAS: Final = {"training": "[training]", "export": "[training]", "demo": "[demo]"}
OWN_PACKAGES: Final = ("contract", "transport", "model", "devservers", *PROGRAMS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a program; returns its exit status, or 2 for a command that does not exist or is not installed."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if words else 2
    command, *rest = words
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; the nearest is `{nearest[0]}`" if nearest else ""
        print(f"A command should be one of {', '.join(COMMANDS)}. Found `{command}`{hint}.", file=sys.stderr)
        return 2
    if command == "init":
        return run_init(rest)
    sys.argv = [f"shopstream {command}", *rest]
    try:
        status: int = import_module(f"{command}.__main__").main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OWN_PACKAGES:
            raise
        print(
            f"`shopstream {command}` should find the packages that it needs. Found no `{package}`: install "
            f"`shopstream{EXTRAS.get(command, '')}`, or the locks in the folder requirements of a checkout.",
            file=sys.stderr,
        )
        return 2
    return status


def run_init(words: Sequence[str]) -> int:
    if len(words) > 1 or any(word.startswith("-") for word in words):
        print(f"`shopstream init` should have one folder at most. Found {' '.join(words)}.", file=sys.stderr)
        return 2
    try:
        for line in write_starter_files(Path(*words)):
            print(line)
    except OSError as error:
        print(f"`shopstream init` should be able to write its files. Found: {error}", file=sys.stderr)
        return 2
    return 0
