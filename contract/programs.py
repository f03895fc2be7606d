"""How a program is called: as a module, or by the installed command."""

import sys
from typing import Final

COMMAND: Final = "shopstream"


def name_program(module: str) -> str:
    """What users type before the arguments of this program."""
    called = sys.argv[0]
    return called if called == f"{COMMAND} {module}" else f"python -m {module}"
