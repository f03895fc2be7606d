"""Whether a folder can be written, asked before the work whose result goes there."""

import tempfile

from contract.errors import BadConfig
from contract.object_folder import Folder, ObjectFolder


def check_writable(folder: Folder, setting: str) -> None:
    """Create a folder if it does not exist, and a file in it for a moment; raises `BadConfig`."""
    try:
        if isinstance(folder, ObjectFolder):
            (folder / ".writable").write_bytes(b"")
            (folder / ".writable").unlink(missing_ok=True)
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadConfig([f"`{setting}` should be a folder that this process may write to. Found: {error}."]) from error
