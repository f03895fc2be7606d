"""Whether a folder can be written, asked before the work whose result goes there."""

import tempfile

from contract.errors import BadConfig
from contract.object_folder import Folder, ObjectFolder


def check_writable(folder: Folder, setting: str) -> None:
    """Create a file in a folder for a moment, or in the nearest one above it that exists; raises `BadConfig`."""
    try:
        if isinstance(folder, ObjectFolder):
            (folder / ".writable").write_bytes(b"")
            (folder / ".writable").unlink(missing_ok=True)
            return
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise BadConfig([f"`{setting}` should be a folder that this process may write to. Found: {error}."]) from error
