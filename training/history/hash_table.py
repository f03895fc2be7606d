"""Ids as hashes on disk, to find repeats and ids that do not meet among more than fit in memory."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.hashing import hash_text

FILES: Final = 64  # an analysis has one of them in memory
BUFFERED: Final = 500_000
Numbers = npt.NDArray[np.uint64]  # (N,): of records
Pairs = npt.NDArray[np.uint64]  # (N, 2): the number of a record, and of the one that it does not agree with
Rows = npt.NDArray[np.uint64]  # (N, 3): hash, record number, hash of the content
WIDTH: Final = 3


class Repeats(NamedTuple):
    """Records with the id of an earlier one, ascending: with the first one's content, and, with its number, without."""

    equal: Numbers
    other: Pairs


class HashTable:
    """Hashes of ids, each with the number of its record and a hash of the content, in ascending order of numbers.

    The content is what records with one id should have in common; 0 agrees with any.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._buffer = array("Q")
        self.count = 0

    def add(self, text: str, number: int, content: int = 0) -> None:
        self._buffer.append(hash_text(text))
        self._buffer.append(number)
        self._buffer.append(content)
        self.count += 1
        if len(self._buffer) >= WIDTH * BUFFERED:
            self._flush()

    def find_repeats(self) -> Repeats:
        """The records whose hash an earlier record has."""
        equal, other = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)]
        for unsorted in self._read():
            rows = unsorted[np.argsort(unsorted[:, 0], kind="stable")]
            is_first = np.diff(rows[:, 0], prepend=rows[:1, 0] + np.uint64(1)) != 0
            places = np.flatnonzero(~is_first)
            repeats, firsts = rows[places], rows[np.flatnonzero(is_first)[np.cumsum(is_first)[places] - 1]]
            is_equal = repeats[:, 2] == firsts[:, 2]
            equal.append(repeats[is_equal, 1])
            other.append(np.stack([repeats[~is_equal, 1], firsts[~is_equal, 1]], 1))
        return Repeats(equal=np.sort(np.concatenate(equal)), other=sort_pairs(np.concatenate(other)))

    def find_missing(self, targets: "HashTable") -> Numbers:
        """The numbers of records with a hash that `targets` lacks, ascending, each once."""
        missing = [np.zeros(0, np.uint64)]
        for rows, target_rows in zip(self._read(), targets._read(), strict=True):
            missing.append(rows[~np.isin(rows[:, 0], target_rows[:, 0]), 1])
        return np.unique(np.concatenate(missing))

    def find_disagreeing(self, targets: "HashTable") -> Pairs:
        """The records with a hash of `targets` whose content none of them agrees with; ascending, with the first."""
        disagreeing = [np.zeros((0, 2), np.uint64)]
        for rows, target_rows in zip(self._read(), targets._read(), strict=True):
            if not len(target_rows):
                continue
            agrees = np.isin(mix(rows), mix(target_rows)) | np.isin(rows[:, 0], target_rows[target_rows[:, 2] == 0, 0])
            hashes, firsts = np.unique(target_rows[:, 0], return_index=True)
            places = np.minimum(np.searchsorted(hashes, rows[:, 0]), len(hashes) - 1)
            chosen = (hashes[places] == rows[:, 0]) & ~agrees
            disagreeing.append(np.stack([rows[chosen, 1], target_rows[firsts[places[chosen]], 1]], 1))
        return sort_pairs(np.concatenate(disagreeing))

    def _read(self) -> Iterator[Rows]:
        """The rows of each file."""
        self._flush()
        for number in range(FILES):
            path = self._path(number)
            yield np.fromfile(path, np.uint64).reshape(-1, WIDTH) if path.exists() else np.zeros((0, WIDTH), np.uint64)

    def _flush(self) -> None:
        rows = np.frombuffer(self._buffer, np.uint64).reshape(-1, WIDTH)
        files = rows[:, 0] % np.uint64(FILES)
        for number in np.unique(files).tolist():
            with self._path(number).open("ab") as file:
                rows[files == number].tofile(file)
        self._buffer = array("Q")

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:02}"


def mix(rows: Rows) -> Numbers:
    """One hash (N,) of the id and the content of each row."""
    return rows[:, 0] ^ rows[:, 2]


def sort_pairs(pairs: Pairs) -> Pairs:
    """Pairs by the number of their record."""
    return pairs[np.argsort(pairs[:, 0], kind="stable")]
