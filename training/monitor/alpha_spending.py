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

NEW_ROWS_SHARE: Final = 0.5  # of the rows of the last look


class Analysis(Struct, frozen=True):
    """The last look of a question: which one, at how many rows, up to which time."""

    number: int = 0
    rows: int = 0
    until_ms: int = 0


class AnalysisRecord(Struct, frozen=True):
    """The looks at one version, by question."""

    version: str
    looks: dict[str, Analysis] = {}


class AlphaSpending:
    """The looks at one version; `rows_min`: of the first one."""

    def __init__(self, *, bundles: Path, version: str, rows_min: int) -> None:
        self._path, self._rows_min = bundles / "watched.json", rows_min
        self._record = read_record(self._path, version)

    @property
    def version(self) -> str:
        return self._record.version

    def is_due(self, question: str, ts_ms: npt.NDArray[np.int64]) -> bool:
        """Whether enough rows of these times (N,) have matured since the last look."""
        last = self._record.looks.get(question, Analysis())
        new_rows = int((ts_ms > last.until_ms).sum())
        return len(ts_ms) >= self._rows_min and new_rows >= max(NEW_ROWS_SHARE * last.rows, 1)

    def spend(self, question: str, ts_ms: npt.NDArray[np.int64]) -> float:
        """Begin the next look; returns the part of the question's risk that it may use. Raises `BadBundle`.

        It is written down before anything is seen: a look that is not remembered would be taken twice.
        """
        number = self._record.looks.get(question, Analysis()).number + 1
        analysis = Analysis(number, len(ts_ms), int(ts_ms.max()))
        self._record = AnalysisRecord(self._record.version, {**self._record.looks, question: analysis})
        replace_durably(self._path, msgspec.json.encode(self._record))
        return 1 / (number * (number + 1))


def read_record(path: Path, version: str) -> AnalysisRecord:
    """The looks that a version had; none where the file is of another one, or cannot be read."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=AnalysisRecord)
    except (OSError, msgspec.MsgspecError):
        return AnalysisRecord(version)
    return record if record.version == version else AnalysisRecord(version)
