"""The lock that keeps a second learner from the same bundles folder; the operating system releases it on any exit."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import BadBundle, BadConfig


@contextmanager
def learner_lock(bundles: Path) -> Iterator[None]:
    """Hold the folder's lock; raises `BadConfig` if another learner holds it, `BadBundle` if it cannot be created."""
    path = bundles / "learner.lock"
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BadBundle(f"{bundles} should be a writable folder. Found: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError as error:
        holder = path.read_text().strip() or "unknown"
        raise BadConfig([f"{bundles} should have one learner. Found another one, process {holder}."]) from error
    finally:
        os.close(descriptor)
