"""One learner for one folder of bundles: a lock that the operating system takes back when its holder dies, however."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import BadBundle, BadConfig


@contextmanager
def learner_lock(bundles: Path) -> Iterator[None]:
    """Hold the folder's lock; raises `BadConfig` where another learner holds it, `BadBundle` where none can be."""
    path = bundles / "learner.lock"
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BadBundle(f"{bundles} should be a folder that can be written. Found: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError as error:
        holder = path.read_text().strip() or "unknown"
        raise BadConfig([f"{bundles} should have one learner. Found another one at work, process {holder}."]) from error
    finally:
        os.close(descriptor)
