"""Whether a folder can be written, asked before the work whose result goes there."""

import tempfile
from pathlib import Path

from contract.errors import BadConfig


def check_writable(folder: Path, setting: str) -> None:
    """Create a folder if it does not exist, and a file in it for a moment; raises `BadConfig`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadConfig([f"`{setting}` should be a folder that this process may write to. Found: {error}."]) from error
