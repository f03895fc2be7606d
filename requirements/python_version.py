"""Checks that the interpreter that runs it is one that the locks are for, before anything is created.

It has to run on any Python, so it uses only what all of them have.
"""

import sys

WANTED = (3, 11)
CONSEQUENCE = "Nothing was created. If that is the one in .venv, run `make clean` first."


def explain(version, executable):
    # type: (tuple[int, ...], str) -> str
    """What is wrong with an interpreter; empty if nothing."""
    if tuple(version[:2]) == WANTED:
        return ""
    wanted = ".".join(str(part) for part in WANTED)
    actual = ".".join(str(part) for part in version[:3])
    return "Python should be {0}: make env PYTHON=/path/to/python{0}. Found {1} at {2}. {3}".format(
        wanted, actual, executable, CONSEQUENCE
    )


if __name__ == "__main__":
    problem = explain(sys.version_info[:3], sys.executable)
    if problem:
        sys.stderr.write(problem + "\n")
        sys.exit(2)
