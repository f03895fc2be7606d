"""The pointers to the serving and the trial bundle: read from a folder at once, from an object store by a thread.

A request to an object store takes longer than a batch, so batches use the answer of the last one.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

from contract.bundle import current_version
from contract.errors import BadBundle
from contract.experiment import Trial, read_trial
from contract.object_folder import Folder, ObjectFolder

POLL_S: Final = 5.0  # between two requests to an object store


class PointerValues(NamedTuple):
    """What each pointer names, or why it cannot be read."""

    version: str | BadBundle | None
    trial: Trial | BadBundle | None


class Pointers:
    """Reads both pointers of a folder or a store."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._is_remote = isinstance(folder, ObjectFolder)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="pointers")
        self._values = PointerValues(None, None)
        self._future: Future[PointerValues] | None = None
        self._asked_s = float("-inf")

    def read_version(self, *, wait: bool) -> str | None:
        """The serving version, None before the first bundle; raises `BadBundle`."""
        if not self._is_remote:
            return current_version(self._folder)
        self._refresh(wait)
        if isinstance(self._values.version, BadBundle):
            raise self._values.version
        return self._values.version

    def read_trial(self) -> Trial | None:
        """The trial, None without one; raises `BadBundle`. Of a store, what the last request found."""
        if not self._is_remote:
            return read_trial(self._folder)
        if isinstance(self._values.trial, BadBundle):
            raise self._values.trial
        return self._values.trial

    def explain_absence(self) -> str:
        """Why there is no serving bundle, empty where a pointer names one; asks no store."""
        folder = self._folder if isinstance(self._folder, ObjectFolder) else self._folder.absolute()
        if not self._is_remote and not self._folder.is_dir():
            return f"`bundles` should be a folder that this process may read. Found none at {folder}."
        has_pointer = self._values.version is not None if self._is_remote else (self._folder / "current.json").exists()
        if has_pointer:
            return ""
        return f"{folder} should have a current bundle. Found none: `python -m export` publishes one."

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    def _refresh(self, wait: bool) -> None:
        """Adopt the answer of the last request, and make the next one; `wait` for a new answer."""
        if wait:
            self._values = self._executor.submit(self._request).result()
            return
        if self._future is not None and self._future.done():
            self._values, self._future = self._future.result(), None
        if self._future is None and time.monotonic() - self._asked_s >= POLL_S:
            self._asked_s = time.monotonic()
            self._future = self._executor.submit(self._request)

    def _request(self) -> PointerValues:
        version: str | BadBundle | None
        trial: Trial | BadBundle | None
        try:
            version = current_version(self._folder)
        except BadBundle as error:
            version = error
        try:
            trial = read_trial(self._folder)
        except BadBundle as error:
            trial = error
        return PointerValues(version, trial)
