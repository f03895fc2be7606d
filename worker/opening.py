"""Opening: the bundle that a pointer names becomes a model while work goes on, or is refused once.

onnxruntime, hashing and unpacking leave the interpreter to the work meanwhile.
"""

import ctypes
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from worker import metrics
from worker.runtime import Model

log = logging.getLogger(__name__)


def give_back_memory() -> None:
    """Let the system have what former models held: glibc keeps what was freed among what is in use."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class Opening:
    """What one pointer names. What was refused is not tried again until the pointer moves."""

    def __init__(self, open_bundle: Callable[[str], Future[Model]]) -> None:
        self._open = open_bundle
        self._version = ""
        self._future: Future[Model] | None = None
        self._refused = ""

    @property
    def done(self) -> bool:
        """Whether a model, or a reason to refuse it, waits to be taken."""
        return self._future is not None and self._future.done()

    @property
    def refused(self) -> bool:
        """Whether nothing will come until the pointer moves."""
        return bool(self._refused)

    def take(self, version: str, known: Iterable[Model], *, waits: bool) -> Model | None:
        """The model of this version; None while it is being opened, and when it was refused before.

        `known`: models that are open already. Raises `BadBundle`, once.
        """
        if version == self._refused:
            return None
        self._refused = ""
        for model in known:
            if model.version == version:
                return model
        if self._future is None or self._version != version:
            self._version, self._future = version, self._open(version)
        if not waits and not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def refuse(self, what: str, sentence: str) -> None:
        """Count it and say why, once."""
        if what != self._refused:
            self._refused = what
            metrics.REFUSED.inc()
            log.error(sentence)

    def forget(self) -> None:
        """There is no pointer: whatever it names next is looked at."""
        self._refused = ""
