"""Drift references on disk, so that a restarted monitor compares with the same rows as before.

BUNDLES/drift/KIND.npz    digest () of the features, and the values (N,) of each column
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
    """The reference of each kind of rows, stored in `folder` if given; files of other features are ignored."""

    def __init__(self, *, digest: str, folder: Path | None = None) -> None:
        self._digest, self._folder = digest, folder
        self._cache: dict[str, dict[str, DriftColumn] | None] = {}

    def read(self, kind: str) -> dict[str, DriftColumn] | None:
        if kind not in self._cache:
            self._cache[kind] = self._load(kind)
        return self._cache[kind]

    def write(self, kind: str, columns: Mapping[str, DriftColumn]) -> None:
        """Replace the reference; if it cannot be stored, this monitor still uses it."""
        previous = self._cache.get(kind)
        self._cache[kind] = dict(columns)
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
            return None  # the next block becomes the reference


def is_same(left: Mapping[str, DriftColumn], right: Mapping[str, DriftColumn]) -> bool:
    """Whether two references share all their column objects."""
    return left.keys() == right.keys() and all(left[name] is right[name] for name in left)
