"""Which step of the protocol a worker is in, told to whoever watches the process from outside.

Where `SHOPSTREAM_STEP_FILE` names a file, the step is one byte in it, through shared memory, so that it can still be
read when the process is gone; kill tests and a curious operator read it. Costs a memory write; without it, nothing.
"""

import mmap
import os
from typing import Final

STEPS: Final = ("idle", "read", "score", "claim", "send", "refresh", "publish", "commit", "merge", "cache", "recover")
STEP_CODES: Final = {name: code for code, name in enumerate(STEPS)}


class StepMarker:
    """Marks the step that begins now."""

    def __init__(self) -> None:
        self._cell: mmap.mmap | bytearray = bytearray(1)
        if path := os.environ.get("SHOPSTREAM_STEP_FILE"):
            with open(path, "w+b") as file:
                file.write(b"\0")
                file.flush()
                self._cell = mmap.mmap(file.fileno(), 1)

    def __call__(self, step: str) -> None:
        self._cell[0] = STEP_CODES[step]

    @property
    def current(self) -> str:
        return STEPS[self._cell[0]]
