"""The rows of one joiner on disk: a folder with a row store, and with what tells whether it may be used.

A store is used only if it was written for the same group, topics, partitions and settings, if its files are as long as
they were, and if it is not ahead of what Kafka has committed. Anything else is thrown away, and the log is read again.
"""

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from contract.errors import Unavailable
from contract.joining.row_store import BrokenStore, TableChanges
from transport.records import TopicPartition
from worker.joiner.partitioned_joiner import READ_STATE, decode_read
from worker.joiner.store.sqlite_rows import SqliteRows

log = logging.getLogger(__name__)
ROWS_FILE: Final = "rows.sqlite"
LOG_FILE: Final = "rows.sqlite-wal"
IDENTITY_STATE: Final = "identity"
LOCK_FILE: Final = "lock"
RECORD_FILE: Final = "commit.json"
COMMIT_STATE: Final = "commit"


class CommitRecord(Struct, frozen=True):
    """The last commit, in a file of its own: its number, and how long the store's files were after it."""

    commit: int = 0
    sizes: dict[str, int] = {}


class ShardStore:
    """An open store; `positions`: where to go on reading, empty for a new store."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], lock: IO[str]) -> None:
        """Open what is in the folder; `lock` is the open lock of it, which the store closes.

        Raises `BrokenStore` if it cannot be used, `Unavailable` if it cannot be opened.
        """
        self._folder, self._lock = folder, lock
        record = self._read_record()
        self._commit = record.commit
        self.rows = SqliteRows(folder / ROWS_FILE)
        try:
            self._check(record, json.loads(json.dumps(identity)))
            state = self.rows.read_state(READ_STATE)
        except BaseException:
            self.rows.close()
            raise
        self.positions: dict[TopicPartition, int] = {
            TopicPartition(partition.topic, partition.partition): partition.index.next_offset
            for partition in (decode_read(state).partitions if state else ())
            if partition.index
        }
        self._identity = json.dumps(identity).encode()

    @property
    def is_new(self) -> bool:
        """Whether nothing was committed to it."""
        return self._commit == 0

    def check_not_ahead(self, read: Mapping[TopicPartition, int]) -> None:
        """Raise `BrokenStore` if it reflects more than the records before `read`, as committed to Kafka."""
        for partition, position in self.positions.items():
            if position > read.get(partition, 0):
                self.rows.close()
                raise BrokenStore(
                    f"It should not be ahead of what Kafka has committed. Found {partition.log_text()} read to "
                    f"{position}, and {read.get(partition, 0)} committed."
                )

    def commit(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None:
        """Write all of it at once; raises `Unavailable`, and may then be called again with the same."""
        number = self._commit + 1
        constant = {IDENTITY_STATE: self._identity, COMMIT_STATE: str(number).encode()}
        self.rows.commit(changes, {**states, **constant})
        self._write_record(number)
        self._commit = number

    def purge(self) -> None:
        """Leave nothing of deleted rows in the files; raises `Unavailable`."""
        self.rows.purge()
        self._write_record(self._commit)

    def size_bytes(self) -> int:
        """What its files take on disk."""
        return sum(size for name in (ROWS_FILE, LOG_FILE) if (size := size_of(self._folder / name)))

    def close(self) -> None:
        """Close it, for this process or another one to go on with."""
        self.rows.close()
        if not self.is_new:
            self._write_record(self._commit)  # closing has emptied the write-ahead log
        self._lock.close()

    def discard(self) -> None:
        """Throw a store away that cannot be read."""
        try:
            self.rows.close()
        except (BrokenStore, Unavailable) as error:
            log.warning("A broken store was not closed: %s", error)
        clear(self._folder)
        self._lock.close()

    def _check(self, record: CommitRecord, identity: Mapping[str, Any]) -> None:
        stored_identity = self.rows.read_state(IDENTITY_STATE)
        commit = int(self.rows.read_state(COMMIT_STATE) or b"0")
        if commit not in (record.commit, record.commit + bool(record.commit)):
            raise BrokenStore(f"Its last commit should be {record.commit}. Found {commit}.")
        self._commit = commit
        stored = json.loads(stored_identity) if stored_identity else identity
        if wrong := [name for name, value in identity.items() if stored.get(name) != value]:
            raise BrokenStore(f"It should be of the same {', '.join(wrong)} as this joiner. Found others.")

    def _read_record(self) -> CommitRecord:
        path = self._folder / RECORD_FILE
        try:
            record = msgspec.json.decode(path.read_bytes(), type=CommitRecord)
        except FileNotFoundError:
            record = CommitRecord()
        except (OSError, msgspec.DecodeError) as error:
            raise BrokenStore(f"{path.name} should be readable. Found: {error}") from error
        for name, size in record.sizes.items():
            if size_of(self._folder / name) < size:
                raise BrokenStore(f"{name} should have at least {size} bytes. Found {size_of(self._folder / name)}.")
        return record

    def _write_record(self, commit: int) -> None:
        sizes = {name: size_of(self._folder / name) for name in (ROWS_FILE, LOG_FILE)}
        path = self._folder / RECORD_FILE
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode(CommitRecord(commit, sizes)))
            os.replace(temporary, path)
        except OSError as error:
            raise Unavailable(f"The store of waiting rows should be written. Found: {error}.") from error


def clear(folder: Path) -> None:
    """Delete what is in the folder, but for its lock."""
    for path in folder.iterdir():
        if path.name != LOCK_FILE:
            path.unlink()


def size_of(path: Path) -> int:
    """The length of a file, 0 without one."""
    return path.stat().st_size if path.exists() else 0
