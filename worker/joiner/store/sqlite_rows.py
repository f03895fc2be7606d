"""A row store in one SQLite file. The only file that uses SQLite.

Rows are in the order of addition, so those that wait for the same time are next to each other: they are written at the
end, and deleted at the beginning. Each row has a checksum.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from contract.errors import Unavailable
from contract.joining.row_store import BrokenStore, StoredRow, TableChanges

CACHE_KIB: Final = 64 * 1024
CHECKPOINT_PAGES: Final = 16_384  # the write-ahead log is copied into the file after 64 MiB
PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # one process; also, the index of the write-ahead log needs no shared memory
    "journal_mode = WAL",
    "synchronous = NORMAL",
    f"cache_size = -{CACHE_KIB}",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    "cell_size_check = ON",
)
TABLE: Final = """
CREATE TABLE IF NOT EXISTS "{0}" (
    number INTEGER PRIMARY KEY, key INTEGER, owner INTEGER, grp INTEGER, due INTEGER, checksum INTEGER, body BLOB
);
CREATE INDEX IF NOT EXISTS "{0} key" ON "{0}" (key);
CREATE INDEX IF NOT EXISTS "{0} owner" ON "{0}" (owner, grp);
CREATE INDEX IF NOT EXISTS "{0} due" ON "{0}" (due);
"""
WRITE: Final = """
INSERT INTO "{0}" VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (number) DO UPDATE SET due = excluded.due, checksum = excluded.checksum, body = excluded.body
"""
SELECT: Final = 'SELECT number, key, owner, grp, due, body, checksum FROM "{0}" '
# Errors that end when there is room, or when another process has ended.
TRANSIENT: Final = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")


class SqliteTable:
    """The rows of one kind."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection, self._select = connection, SELECT.format(name)
        self._first_due = f'SELECT min(due) FROM "{name}" WHERE due >= ?'
        self._name = name

    def read_key(self, key: int) -> Sequence[StoredRow]:
        return self._read("WHERE key = ?", key)

    def read_group(self, owner: int, group: int) -> Sequence[StoredRow]:
        return self._read("WHERE owner = ? AND grp = ? ORDER BY number", owner, group)

    def read_owner(self, owner: int) -> Sequence[StoredRow]:
        return self._read("WHERE owner = ? ORDER BY number", owner)

    def read_due(self, before_ms: int, after: tuple[int, int], limit: int) -> Sequence[StoredRow]:
        condition = "WHERE (due, number) > (?, ?) AND due < ? ORDER BY due, number LIMIT ?"
        return self._read(condition, *after, before_ms, limit)

    def first_due_ms(self, from_ms: int) -> int | None:
        with translate_errors("be read"):
            first_ms: int | None = self._connection.execute(self._first_due, (from_ms,)).fetchone()[0]
            return first_ms

    def read_all(self) -> Sequence[StoredRow]:
        return self._read("ORDER BY number")

    def _read(self, condition: str, *values: int) -> list[StoredRow]:
        with translate_errors("be read"):
            rows = self._connection.execute(self._select + condition, values).fetchall()
        for row in rows:
            check(row[5], row[6], f"Row {row[0]} of {self._name}")
        return [StoredRow(*row[:6]) for row in rows]


class SqliteRows:
    """Tables and states in a file. Raises `Unavailable` where it cannot be opened or written for now."""

    def __init__(self, path: Path) -> None:
        self._tables: set[str] = set()
        with translate_errors("be opened"):
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS states (name TEXT PRIMARY KEY, checksum INTEGER, value BLOB) WITHOUT ROWID"
            )

    def table(self, name: str) -> SqliteTable:
        with translate_errors("be written"):
            self._connection.executescript(TABLE.format(name))
        return SqliteTable(self._connection, name)

    def read_state(self, name: str) -> bytes | None:
        with translate_errors("be read"):
            found = self._connection.execute("SELECT value, checksum FROM states WHERE name = ?", (name,)).fetchone()
        if found is None:
            return None
        value: bytes = found[0]
        check(value, found[1], f"The state {name}")
        return value

    def commit(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None:
        """Write all of it in one transaction."""
        with translate_errors("be written"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._write(changes, states)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with translate_errors("be closed"):
            self._connection.close()

    def _write(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None:
        write_many = self._connection.executemany
        new_states = dict(states)
        for change in changes:
            new_states[change.table] = change.state
            deleted = [(number,) for number in change.deleted]
            write_many(f'DELETE FROM "{change.table}" WHERE number = ?', deleted)
            rows = ((*row[:5], zlib.crc32(row.body), row.body) for row in change.rows)
            write_many(WRITE.format(change.table), rows)
        write_many(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
            [(name, zlib.crc32(value), value) for name, value in new_states.items()],
        )


def check(value: Any, checksum: Any, name: str) -> None:
    if not isinstance(value, bytes) or zlib.crc32(value) != checksum:
        raise BrokenStore(f"{name} should have the checksum {checksum}. Found other contents.")


@contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Rename SQLite's errors: `Unavailable` for those that may end, `BrokenStore` for all others."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        kind = Unavailable if name.startswith(TRANSIENT) else BrokenStore
        raise kind(f"The store of waiting rows should {action}. Found: {error}.") from error
