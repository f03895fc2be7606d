"""References of drift as files, so that a watcher that starts again goes on comparing with the same rows.

BUNDLES/drift/KIND.npz    digest () of the features, and for each column its values (N,)
"""

import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from contract.bundle import replace_durably
from contract.errors import BadBundle
from training.monitor.drift_columns import DriftColumn

COLUMN_PREFIX: Final = "column."


class DriftReferences:
    """The reference of each kind of rows, kept in a folder if there is one; those of other features are none."""

    def __init__(self, *, digest: str, folder: Path | None = None) -> None:
        self._digest, self._folder = digest, folder
        self._cache: dict[str, dict[str, DriftColumn] | None] = {}

    def read(self, kind: str) -> dict[str, DriftColumn] | None:
        if kind not in self._cache:
            self._cache[kind] = self._load(kind)
        return self._cache[kind]

    def write(self, kind: str, columns: Mapping[str, DriftColumn]) -> None:
        """Make these columns the reference. One that cannot be kept is still that of this watcher."""
        previous, self._cache[kind] = self._cache.get(kind), dict(columns)
        if self._folder is None or (previous is not None and is_same(previous, columns)):
            return
        sink = io.BytesIO()
        arrays = {f"{COLUMN_PREFIX}{name}": column.values for name, column in columns.items()}
        np.savez_compressed(sink, allow_pickle=False, digest=np.array(self._digest), **arrays)
        with suppress(BadBundle, OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_durably(self._folder / f"{kind}.npz", sink.getvalue())

    def _load(self, kind: str) -> dict[str, DriftColumn] | None:
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{kind}.npz", allow_pickle=False) as arrays:
                if str(arrays["digest"]) != self._digest:
                    return None
                names = [name for name in arrays.files if name.startswith(COLUMN_PREFIX)]
                return {name.removeprefix(COLUMN_PREFIX): DriftColumn(arrays[name]) for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # the first block will be one


def is_same(left: Mapping[str, DriftColumn], right: Mapping[str, DriftColumn]) -> bool:
    """Whether two references are the very same columns."""
    return left.keys() == right.keys() and all(left[name] is right[name] for name in left)
