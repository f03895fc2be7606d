"""Drift references on disk, so that a restarted monitor compares with the same rows as before.

BUNDLES/drift/KIND.npz    digest () of the features, and by column the values (N,) and the number of its owners ();
                          by that number hashes of users (N,) uint64 and the times of their rows (N,) int64

A file without owners, as earlier versions wrote it, is ignored: erased people could not be found in it.
"""

import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from contract.bundle import fsync_folder, replace_durably
from contract.errors import BadBundle
from contract.hashing import hash_text
from contract.profiles.erasures import Erasures
from training.monitor.drift_columns import DriftColumn, RowOwners

COLUMN, OWNER, USERS, TIMES = "column.", "owner.", "users.", "ts_ms."
Columns = Mapping[str, DriftColumn]


class DriftReferences:
    """The reference of each kind of rows, stored in `folder` if given; files of other features are ignored."""

    def __init__(self, *, digest: str, folder: Path | None = None) -> None:
        self._digest, self._folder = digest, folder
        self._cache: dict[str, Columns | None] = {}

    def read(self, kind: str) -> Columns | None:
        if kind not in self._cache:
            self._cache[kind] = self._load(kind)
        return self._cache[kind]

    def write(self, kind: str, columns: Columns) -> None:
        """Replace the reference; if it cannot be stored, this monitor still uses it."""
        previous = self._cache.get(kind)
        self._cache[kind] = dict(columns)
        if self._folder is None or (previous is not None and is_same(previous, columns)):
            return
        with suppress(BadBundle, OSError):
            self._store(self._folder, kind, columns)

    def erase(self, erasures: Erasures) -> None:
        """Remove the rows that erasures cover, here and on the disk; raises `BadBundle` if that is not possible.

        A file that is ignored is deleted, and so is an unfinished one.
        """
        until_ms = {hash_text(user): ms for user, ms in erasures.until_ms.items()}
        kinds = {*self._cache, *(path.stem for path in self._list_files("*.npz"))}
        for kind in sorted(kinds):
            columns = self.read(kind)
            erased = erase_columns(columns, until_ms) if columns else None
            self._cache[kind] = erased
            if self._folder is not None and (erased is None or columns is None or not is_same(columns, erased)):
                self._replace(self._folder, kind, erased)
        for unfinished in self._list_files(".*"):
            unfinished.unlink(missing_ok=True)

    def _list_files(self, pattern: str) -> list[Path]:
        return list(self._folder.glob(pattern)) if self._folder else []

    def _replace(self, folder: Path, kind: str, columns: Columns | None) -> None:
        """Store or delete the file of a reference, on the disk when this returns; raises `BadBundle`."""
        try:
            if columns:
                self._store(folder, kind, columns)
            else:
                (folder / f"{kind}.npz").unlink(missing_ok=True)
            if folder.is_dir():
                fsync_folder(folder)
        except OSError as error:
            raise BadBundle(f"{folder} should be a writable folder. Found: {error}") from error

    def _store(self, folder: Path, kind: str, columns: Columns) -> None:
        owners = {id(column.owners): column.owners for column in columns.values()}
        numbers = {ident: number for number, ident in enumerate(owners)}
        arrays: dict[str, Any] = {"digest": np.array(self._digest)}
        for name, column in columns.items():
            arrays[f"{COLUMN}{name}"] = column.values
            arrays[f"{OWNER}{name}"] = np.array(numbers[id(column.owners)])
        for ident, number in numbers.items():
            arrays[f"{USERS}{number}"], arrays[f"{TIMES}{number}"] = owners[ident].users, owners[ident].ts_ms
        sink = io.BytesIO()
        np.savez_compressed(sink, allow_pickle=False, **arrays)
        folder.mkdir(parents=True, exist_ok=True)
        replace_durably(folder / f"{kind}.npz", sink.getvalue())

    def _load(self, kind: str) -> Columns | None:
        if self._folder is None:
            return None
        try:
            with np.load(self._folder / f"{kind}.npz", allow_pickle=False) as arrays:
                if str(arrays["digest"]) != self._digest:
                    return None
                numbers = [int(name.removeprefix(USERS)) for name in arrays.files if name.startswith(USERS)]
                owners = {n: RowOwners(arrays[f"{USERS}{n}"], arrays[f"{TIMES}{n}"]) for n in numbers}
                names = [name.removeprefix(COLUMN) for name in arrays.files if name.startswith(COLUMN)]
                return {n: DriftColumn(arrays[f"{COLUMN}{n}"], owners[int(arrays[f"{OWNER}{n}"])]) for n in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # the next block becomes the reference


def erase_columns(columns: Columns, until_ms: Mapping[int, int]) -> Columns:
    """The columns without the rows that erasures cover, given the times of these by the hash of the user."""
    owners = {id(column.owners): column.owners for column in columns.values()}
    is_kept = {ident: ~rows.find_erased(until_ms) for ident, rows in owners.items()}
    kept = {
        ident: rows if is_kept[ident].all() else RowOwners(rows.users[is_kept[ident]], rows.ts_ms[is_kept[ident]])
        for ident, rows in owners.items()
    }
    return {
        name: column
        if kept[id(column.owners)] is column.owners
        else DriftColumn(column.values[is_kept[id(column.owners)]], kept[id(column.owners)])
        for name, column in columns.items()
    }


def is_same(left: Columns, right: Columns) -> bool:
    """Whether two references share all their column objects."""
    return left.keys() == right.keys() and all(left[name] is right[name] for name in left)
