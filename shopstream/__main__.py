"""`python -m shopstream` is the command `shopstream`."""

import faulthandler
import sys

from shopstream.command import main


def run() -> int:
    """The exit status of the command in the arguments of this process."""
    faulthandler.enable()  # a fault in a library ends the process; the stacks on stderr say where
    return main()


if __name__ == "__main__":
    sys.exit(run())
