"""Up to which event time drift has been tested, on disk, so that a restarted monitor raises no alarm twice.

BUNDLES/drift/compared.json    {KIND: the event time in ms of the last row of the last complete block}
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from contract.bundle import replace_durably
from contract.errors import BadBundle

FILE: Final = "compared.json"


class ComparedUntil:
    """The time of each kind of rows; stored in `folder` if given."""

    def __init__(self, *, folder: Path | None = None) -> None:
        self._folder = folder
        self._until_ms: dict[str, int] = {}
        if folder is not None:
            with suppress(OSError, msgspec.MsgspecError):
                self._until_ms = msgspec.json.decode((folder / FILE).read_bytes(), type=dict[str, int])

    def has_passed(self, kind: str, ts_ms: int) -> bool:
        """Whether a row of this time belongs to a block that was compared."""
        return ts_ms < self._until_ms.get(kind, ts_ms)

    def advance(self, kind: str, ts_ms: int) -> None:
        """Note a complete block; if that cannot be stored, this monitor still knows it."""
        self._until_ms[kind] = max(ts_ms, self._until_ms.get(kind, ts_ms))
        if self._folder is None:
            return
        with suppress(BadBundle, OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_durably(self._folder / FILE, msgspec.json.encode(self._until_ms))
