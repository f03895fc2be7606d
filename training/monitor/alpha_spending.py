"""Alpha spending: repeated tests of a bundle that together keep the false-rollback rate below the configured risk.

Each question (is this task worse? are all tasks together?) has its share of the risk and spends it over its analyses:
the j-th analysis may use 1 / (j (j + 1)) of the share, so that all of them use at most the whole. An analysis is due
when half as many rows as at the last one have matured since. The analyses of the serving bundle are stored in a file,
so that a restarted monitor continues the count.

    BUNDLES/watched.json    the version, and for each question the number of analyses and the rows of the last one
"""

from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from contract.bundle import replace_durably

NEW_ROWS_SHARE: Final = 0.5  # of the rows of the last analysis


class Analysis(Struct, frozen=True):
    """The last analysis of a question: its number, its rows, and the latest event time among them."""

    number: int = 0
    rows: int = 0
    until_ms: int = 0


class AnalysisRecord(Struct, frozen=True):
    """The last analyses of one version, by question."""

    version: str
    looks: dict[str, Analysis] = {}


class AlphaSpending:
    """The analyses of one version. `rows_min`: rows of the first one."""

    def __init__(self, *, bundles: Path, version: str, rows_min: int) -> None:
        self._path = bundles / "watched.json"
        self._rows_min = rows_min
        self._record = read_record(self._path, version)

    @property
    def version(self) -> str:
        return self._record.version

    def is_due(self, question: str, ts_ms: npt.NDArray[np.int64]) -> bool:
        """Whether enough rows, with these event times (N,), have matured since the last analysis."""
        last = self._record.looks.get(question, Analysis())
        new_rows = int((ts_ms > last.until_ms).sum())
        return len(ts_ms) >= self._rows_min and new_rows >= max(NEW_ROWS_SHARE * last.rows, 1)

    def spend(self, question: str, ts_ms: npt.NDArray[np.int64]) -> float:
        """Begin the next analysis; returns the part of the question's risk that it may use. Raises `BadBundle`.

        It is stored before the test runs: after a crash an unstored analysis would be spent twice.
        """
        number = self._record.looks.get(question, Analysis()).number + 1
        analysis = Analysis(number, len(ts_ms), int(ts_ms.max()))
        self._record = AnalysisRecord(self._record.version, {**self._record.looks, question: analysis})
        replace_durably(self._path, msgspec.json.encode(self._record))
        return 1 / (number * (number + 1))


def read_record(path: Path, version: str) -> AnalysisRecord:
    """The analyses of a version; empty if the file is of another version or cannot be read."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=AnalysisRecord)
    except (OSError, msgspec.MsgspecError):
        return AnalysisRecord(version)
    return record if record.version == version else AnalysisRecord(version)
