"""The folder of this checkout: child processes get it as PYTHONPATH, settings and digested code lie under it."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
