"""Erasure in files: the checkpoints of a folder of bundles are rewritten without the rows of erased people.

    BUNDLES/checkpoints/*.pt, BUNDLES/refused/checkpoints/*.pt    replay buffer, pending examples, interactions

A checkpoint keeps its name, weights and metadata. It is replaced atomically, so a crash leaves the old file or the new
one, and the next pass finds it. Unfinished files, which a crashed process left, are deleted.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from contract.bundle import fsync_folder
from contract.errors import BadBundle, BadData
from contract.profiles.erasures import Erasures
from model.checkpoint import Checkpoint, read_checkpoint, replace_checkpoint
from training.data.erased_rows import drop_erased
from training.data.parquet import encode_table, read_table

log = logging.getLogger(__name__)
FOLDERS: Final = ("checkpoints", "refused/checkpoints")


class CheckpointEraser:
    """Removes erased people from every checkpoint of a folder, now and when a file is added."""

    def __init__(self, *, bundles: Path) -> None:
        self._bundles = bundles
        self._checked: dict[Path, os.stat_result] = {}

    def erase(self, erasures: Erasures, has_new: bool) -> bool:
        """Rewrite the files that hold rows of erased people; whether none is left, on the disk. Raises `BadBundle`.

        `has_new`: there are erasures that the last successful call did not have; else only changed files are read.
        """
        with checkpoint_lock(self._bundles):
            folders = [folder for name in FOLDERS if (folder := self._bundles / name).is_dir()]
            if has_new:
                self._checked = {}
            completed = [self._erase_folder(folder, erasures) for folder in folders]
        return all(completed)

    def _erase_folder(self, folder: Path, erasures: Erasures) -> bool:
        is_complete = True
        for unfinished in folder.glob(".*"):
            unfinished.unlink(missing_ok=True)
        for path in sorted(folder.glob("*.pt")):
            status = path.stat()
            if is_same_file(self._checked.get(path), status):
                continue
            try:
                erase_file(path, erasures)
                self._checked[path] = path.stat()
            except (BadBundle, BadData) as error:
                log.error("Erasures are not carried out in a file; delete it if it is of no use. %s", error)
                is_complete = False
        try:
            fsync_folder(folder)
        except OSError as error:
            raise BadBundle(f"{folder} should be written to the disk. Found: {error}") from error
        return is_complete


def erase_file(path: Path, erasures: Erasures) -> None:
    """Rewrite a checkpoint without the rows that are erased, if it has any; raises `BadBundle`."""
    checkpoint = read_checkpoint(path, is_lazy=True)
    erased = erase_rows(checkpoint, erasures)
    if erased is not checkpoint:
        replace_checkpoint(path, erased)


def erase_rows(checkpoint: Checkpoint, erasures: Erasures) -> Checkpoint:
    """The checkpoint without the rows of erased people; itself if it has none. Weights are not changed."""
    erased = replace(
        checkpoint,
        replay_buffer=erase_parquet(checkpoint.replay_buffer, erasures),
        pending_examples=erase_parquet(checkpoint.pending_examples, erasures),
        interactions=erase_parquet(checkpoint.interactions, erasures),
    )
    return checkpoint if get_rows(erased) == get_rows(checkpoint) else erased


def get_rows(checkpoint: Checkpoint) -> tuple[bytes, bytes, bytes]:
    """The parts that hold rows of people."""
    return checkpoint.replay_buffer, checkpoint.pending_examples, checkpoint.interactions


def erase_parquet(content: bytes, erasures: Erasures) -> bytes:
    """Parquet without the rows that are erased; empty if no row is left, the same bytes if none is erased."""
    if not content:
        return content
    table = read_table(content)
    kept = drop_erased(table, erasures)
    if kept is table:
        return content
    return encode_table(kept) if len(kept) else b""


def is_same_file(former: os.stat_result | None, status: os.stat_result) -> bool:
    """Whether a file is unchanged since it was checked."""
    return former is not None and (former.st_ino, former.st_mtime_ns, former.st_size) == (
        status.st_ino,
        status.st_mtime_ns,
        status.st_size,
    )


@contextmanager
def checkpoint_lock(bundles: Path) -> Iterator[None]:
    """Hold back other writers of checkpoints: a process that writes one reads the erasures under this lock.

    So a checkpoint is either there when erased rows are searched, or written without them. Raises `BadBundle`.
    """
    try:
        bundles.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(bundles / "erasure.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BadBundle(f"{bundles} should be a writable folder. Found: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
