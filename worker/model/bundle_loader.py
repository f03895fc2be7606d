"""Opening: the bundle that a pointer names becomes a model while work goes on, or is refused once.

onnxruntime, hashing and unpacking leave the interpreter to the work meanwhile.
"""

import ctypes
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from worker.model.onnx_model import Model
from worker.ops import metrics

log = logging.getLogger(__name__)


def trim_heap() -> None:
    """Let the system have what former models held: glibc keeps what was freed among what is in use."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class BundleLoader:
    """What one pointer names. What was refused is not tried again until the pointer moves."""

    def __init__(self, load_bundle: Callable[[str], Future[Model]]) -> None:
        self._load = load_bundle
        self._version = ""
        self._future: Future[Model] | None = None
        self._rejected = ""

    @property
    def is_done(self) -> bool:
        """Whether a model, or a reason to refuse it, waits to be taken."""
        return self._future is not None and self._future.done()

    @property
    def is_rejected(self) -> bool:
        """Whether nothing will come until the pointer moves."""
        return bool(self._rejected)

    def poll(self, version: str, loaded: Iterable[Model], *, wait: bool) -> Model | None:
        """The model of this version; None while it is being opened, and when it was refused before.

        `known`: models that are open already. Raises `BadBundle`, once.
        """
        if version == self._rejected:
            return None
        self._rejected = ""
        for model in loaded:
            if model.version == version:
                return model
        if self._future is None or self._version != version:
            self._version, self._future = version, self._load(version)
        if not wait and not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    def reject(self, name: str, reason: str) -> None:
        """Count it and say why, once."""
        if name != self._rejected:
            self._rejected = name
            metrics.BUNDLES_REFUSED.inc()
            log.error(reason)

    def clear_rejection(self) -> None:
        """There is no pointer: whatever it names next is looked at."""
        self._rejected = ""
