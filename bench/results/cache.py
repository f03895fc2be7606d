"""Results that survive the end of a bench: each carries the digest of the code that made it, else it is made again."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")


class CacheFile(msgspec.Struct, kw_only=True):
    """`seconds`: wall-clock time between opening the cache and its last result, summed over all runs."""

    digest: str
    seconds: float = 0.0
    results: dict[str, msgspec.Raw] = {}


class ResultCache(Generic[T]):
    """Results by key, written to a file as soon as each is measured, so that an interrupted bench continues.

    Results of another digest are dropped. `path` None: in memory only.
    """

    def __init__(self, *, path: Path | None, digest: str, result_type: type[T]) -> None:
        self._path, self._type = path, result_type
        self._file = read_cache_file(path, digest)
        self._results = {key: msgspec.json.decode(raw, type=result_type) for key, raw in self._file.results.items()}
        self._started_s, self._seconds_before = time.monotonic(), self._file.seconds

    @property
    def seconds(self) -> float:
        """Wall-clock time of all runs that have measured these results."""
        return self._file.seconds

    def __getitem__(self, key: str) -> T:
        return self._results[key]

    def find_missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a result."""
        return [key for key in keys if key not in self._results]

    def get_or_measure(self, key: str, measure: Callable[[], T]) -> T:
        if key not in self._results:
            self.record(key, measure())
        return self._results[key]

    def record(self, key: str, result: T) -> None:
        self._results[key] = result
        self._file.results[key] = msgspec.Raw(msgspec.json.encode(result))
        self._file.seconds = round(self._seconds_before + time.monotonic() - self._started_s, 1)
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part_path = self._path.with_suffix(".part")
            part_path.write_bytes(msgspec.json.encode(self._file))
            part_path.replace(self._path)


def read_cache_file(path: Path | None, digest: str) -> CacheFile:
    """The file's content, or an empty one if the file is missing, of another digest or of another format."""
    if path and path.is_file():
        try:
            stored = msgspec.json.decode(path.read_bytes(), type=CacheFile)
        except msgspec.DecodeError:
            return CacheFile(digest=digest)
        if stored.digest == digest:
            return stored
    return CacheFile(digest=digest)


def load_or_make(path: Path, digest: str, make: Callable[[], Any], *, read: Callable[[Path], T]) -> T:
    """Read the file or folder at `path` if code of this digest has made it; else call `make`, which writes it."""
    digest_path = path.with_name(f"{path.name}.digest")
    if not (path.exists() and digest_path.is_file() and digest_path.read_text() == digest):
        path.parent.mkdir(parents=True, exist_ok=True)
        digest_path.unlink(missing_ok=True)
        make()
        digest_path.write_text(digest)  # last: after an interruption it is made again
    return read(path)
