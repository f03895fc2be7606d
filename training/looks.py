"""How often a bundle is looked at, and what each look may find: looking again and again must find nothing by chance.

Each question (is this task worse? are all together?) has its share of the risk, and spends it over its looks: the j-th
look of a question may use 1 / (j (j + 1)) of that share, and all of them together use no more than the whole. A look
takes place when half as many rows as at the last one have matured since. The looks of the bundle that serves are kept
in a file, so that a watcher that starts again does not begin to count anew.

    BUNDLES/watched.json    the version, and for each question how many looks it had, and at which rows
"""

from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.bundle import replace_durably

NEW: Final = 0.5  # of the rows of the last look


class Look(Struct, frozen=True):
    """The last look of a question: which one, at how many rows, up to which time."""

    number: int = 0
    rows: int = 0
    until_ms: int = 0


class Watched(Struct, frozen=True):
    """The looks at one version, by question."""

    version: str
    looks: dict[str, Look] = {}


class Looks:
    """The looks at one version; `rows_min`: of the first one."""

    def __init__(self, *, bundles: Path, version: str, rows_min: int) -> None:
        self._path, self._rows_min = bundles / "watched.json", rows_min
        self._watched = read_watched(self._path, version)

    @property
    def version(self) -> str:
        return self._watched.version

    def is_due(self, question: str, ts_ms: npt.NDArray[np.int64]) -> bool:
        """Whether enough rows of these times (N,) have matured since the last look."""
        last = self._watched.looks.get(question, Look())
        fresh = int((ts_ms > last.until_ms).sum())
        return len(ts_ms) >= self._rows_min and fresh >= max(NEW * last.rows, 1)

    def take(self, question: str, ts_ms: npt.NDArray[np.int64]) -> float:
        """Begin the next look; returns the part of the question's risk that it may use. Raises `BadBundle`.

        It is written down before anything is seen: a look that is not remembered would be taken twice.
        """
        number = self._watched.looks.get(question, Look()).number + 1
        look = Look(number, len(ts_ms), int(ts_ms.max()))
        self._watched = Watched(self._watched.version, {**self._watched.looks, question: look})
        replace_durably(self._path, msgspec.json.encode(self._watched))
        return 1 / (number * (number + 1))


def read_watched(path: Path, version: str) -> Watched:
    """The looks that a version had; none where the file is of another one, or cannot be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Watched)
    except (OSError, msgspec.MsgspecError):
        return Watched(version)
    return found if found.version == version else Watched(version)
