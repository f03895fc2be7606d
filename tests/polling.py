"""Waiting for a condition in tests."""

import time
from collections.abc import Callable
from typing import Final

TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.01


def wait_until(
    condition: Callable[[], object],
    describe: Callable[[], object] = lambda: "that it did not",
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Return once `condition()` holds; fails after `timeout_s`, with `describe()` in its message."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"It should have happened within {timeout_s:g} s. Found {describe()}."
        time.sleep(POLL_S)
