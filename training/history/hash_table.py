"""Ids as hashes on disk, to find repeats and ids that do not meet among more than fit in memory."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.hashing import hash_text

FILES: Final = 64  # an analysis has one of them in memory
BUFFERED: Final = 500_000
Pairs = npt.NDArray[np.uint64]  # (N, 2): hash and record number


class HashTable:
    """Hashes with the number of the record that each is from, in ascending order of numbers."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._buffer = array("Q")
        self.count = 0

    def add(self, text: str, number: int) -> None:
        self._buffer.append(hash_text(text))
        self._buffer.append(number)
        self.count += 1
        if len(self._buffer) >= 2 * BUFFERED:
            self._flush()

    def find_repeats(self) -> npt.NDArray[np.uint64]:
        """The numbers of records whose hash an earlier record has, ascending."""
        repeats = [np.zeros(0, np.uint64)]
        for pairs in self._read():
            order = np.argsort(pairs[:, 0], kind="stable")
            is_repeat = np.diff(pairs[order, 0], prepend=pairs[order[:1], 0] + np.uint64(1)) == 0
            repeats.append(pairs[order[is_repeat], 1])
        return np.sort(np.concatenate(repeats))

    def find_missing(self, targets: "HashTable") -> npt.NDArray[np.uint64]:
        """The numbers of records with a hash that `targets` lacks, ascending, each once."""
        missing = [np.zeros(0, np.uint64)]
        for pairs, target_pairs in zip(self._read(), targets._read(), strict=True):
            missing.append(pairs[~np.isin(pairs[:, 0], target_pairs[:, 0]), 1])
        return np.unique(np.concatenate(missing))

    def _read(self) -> Iterator[Pairs]:
        """The pairs of each file."""
        self._flush()
        for number in range(FILES):
            path = self._path(number)
            yield np.fromfile(path, np.uint64).reshape(-1, 2) if path.exists() else np.zeros((0, 2), np.uint64)

    def _flush(self) -> None:
        pairs = np.frombuffer(self._buffer, np.uint64).reshape(-1, 2)
        files = pairs[:, 0] % np.uint64(FILES)
        for number in np.unique(files).tolist():
            with self._path(number).open("ab") as file:
                pairs[files == number].tofile(file)
        self._buffer = array("Q")

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:02}"
