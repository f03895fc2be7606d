"""A row store in one SQLite file. The only file that uses SQLite.

Rows are in the order of addition, so those that wait for the same time are next to each other: they are written at the
end, and deleted at the beginning. Each row has a checksum. The index by hash has two levels, see `SqliteTable.settle`.
"""

import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from contract.errors import Unavailable
from contract.joining.row_store import BrokenStore, StoredRow, TableChanges

CACHE_KIB: Final = 64 * 1024
RECENT_MAX: Final = 2_000_000  # entries of an index, 14 bytes each
CHECKPOINT_PAGES: Final = 16_384  # the write-ahead log is copied into the file after 64 MiB
PRAGMAS: Final = (
    "locking_mode = EXCLUSIVE",  # one process; also, the index of the write-ahead log needs no shared memory
    "journal_mode = WAL",
    "synchronous = NORMAL",
    f"cache_size = -{CACHE_KIB}",
    f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    "cell_size_check = ON",
    "secure_delete = ON",  # rows of an erased user do not stay in free pages
)
TABLE: Final = """
CREATE TABLE IF NOT EXISTS "{0}" (number INTEGER PRIMARY KEY, due INTEGER, checksum INTEGER, body BLOB);
CREATE INDEX IF NOT EXISTS "{0} due" ON "{0}" (due);
CREATE TABLE IF NOT EXISTS "{0} recent" (hash INTEGER, number INTEGER, PRIMARY KEY (hash, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS "{0} settled" (hash INTEGER, number INTEGER, PRIMARY KEY (hash, number)) WITHOUT ROWID;
"""
SELECT: Final = 'SELECT number, due, body, checksum FROM "{0}" '
FIND: Final = """JOIN (
    SELECT number FROM "{0} recent" WHERE hash = ?1 UNION SELECT number FROM "{0} settled" WHERE hash = ?1
) USING (number) ORDER BY number"""
ADD: Final = 'INSERT OR REPLACE INTO "{0}" VALUES (?, ?, ?, ?)'
UPDATE: Final = 'UPDATE "{0}" SET due = ?2, checksum = ?3, body = ?4 WHERE number = ?1'
INDEX: Final = 'INSERT OR IGNORE INTO "{0} recent" VALUES (?, ?)'
SETTLE: Final = """
INSERT OR IGNORE INTO "{0} settled" SELECT * FROM "{0} recent" ORDER BY hash, number;
DELETE FROM "{0} recent";
"""
# Errors that end when there is room, or when another process has ended.
TRANSIENT: Final = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")


class SqliteTable:
    """The rows of one kind."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection, self._name = connection, name
        self._select, self._find = SELECT.format(name), FIND.format(name)

    def find(self, value: int) -> Sequence[StoredRow]:
        return self._read(self._find, value)

    def read_due(self, before_ms: int, after: tuple[int, int], limit: int) -> Sequence[StoredRow]:
        condition = "WHERE (due, number) > (?, ?) AND due < ? ORDER BY due, number LIMIT ?"
        return self._read(condition, *after, before_ms, limit)

    def first_due_ms(self, from_ms: int) -> int | None:
        with translate_errors("be read"):
            query = f'SELECT min(due) FROM "{self._name}" WHERE due >= ?'
            first_ms: int | None = self._connection.execute(query, (from_ms,)).fetchone()[0]
            return first_ms

    def read_all(self) -> Sequence[StoredRow]:
        return self._read("ORDER BY number")

    def write(self, changes: TableChanges) -> None:
        """Write changes within the caller's transaction."""
        name, write_many = self._name, self._connection.executemany
        write_many(f'DELETE FROM "{name}" WHERE number = ?', [(number,) for number in changes.deleted])
        write_many(ADD.format(name), map(with_checksum, changes.added))
        write_many(UPDATE.format(name), map(with_checksum, changes.updated))
        write_many(INDEX.format(name), ((value, row.number) for row in changes.added for value in row.hashes))

    def settle(self) -> None:
        """Move the recent entries of the index to the settled ones, within the caller's transaction.

        A settled page is written again for many entries at a time: hashes have no order, so each new one would
        otherwise cost a page of its own. Entries of deleted rows are deleted with those of the rows before them.
        """
        name, execute = self._name, self._connection.execute
        for statement in SETTLE.format(name).split(";"):
            execute(statement)
        first, count = execute(f'SELECT min(number), max(number) - min(number) + 1 FROM "{name}"').fetchone()
        stale = execute(
            f'SELECT count(*) FROM (SELECT 1 FROM "{name} settled" WHERE number < ? LIMIT ?)', (first or 0, count or 1)
        )
        if first is None or stale.fetchone()[0] == (count or 1):
            execute(f'DELETE FROM "{name} settled" WHERE number < ?', (2**62 if first is None else first,))

    def _read(self, condition: str, *values: int) -> list[StoredRow]:
        with translate_errors("be read"):
            rows = self._connection.execute(self._select + condition, values).fetchall()
        for number, _, body, checksum in rows:
            check(body, checksum, f"Row {number} of {self._name}")
        return [StoredRow(number, due_ms, body) for number, due_ms, body, _ in rows]


class SqliteRows:
    """Tables and states in a file. Raises `Unavailable` where it cannot be opened or written for now."""

    def __init__(self, path: Path) -> None:
        self._tables: dict[str, SqliteTable] = {}
        self._recent: Counter[str] = Counter()  # entries of the index that are not settled, at most
        with translate_errors("be opened"):
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=0, check_same_thread=False)
            for pragma in PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS states (name TEXT PRIMARY KEY, checksum INTEGER, value BLOB) WITHOUT ROWID"
            )

    def table(self, name: str) -> SqliteTable:
        if name not in self._tables:
            with translate_errors("be written"):
                self._connection.executescript(TABLE.format(name))
                count = self._connection.execute(f'SELECT count(*) FROM "{name} recent"').fetchone()[0]
            self._recent[name] = count
            self._tables[name] = SqliteTable(self._connection, name)
        return self._tables[name]

    def read_state(self, name: str) -> bytes | None:
        with translate_errors("be read"):
            row = self._connection.execute("SELECT value, checksum FROM states WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        value: bytes = row[0]
        check(value, row[1], f"The state {name}")
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

    def purge(self) -> None:
        """Empty the write-ahead log, which has rows that were deleted since."""
        with translate_errors("be written"):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        with translate_errors("be closed"):
            self._connection.close()

    def _write(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None:
        new_states = dict(states)
        for change in changes:
            new_states[change.table] = change.state
            table = self._tables[change.table]
            table.write(change)
            self._recent[change.table] += sum(len(row.hashes) for row in change.added)
            if self._recent[change.table] > RECENT_MAX:
                table.settle()
                self._recent[change.table] = 0
        self._connection.executemany(
            "INSERT OR REPLACE INTO states VALUES (?, ?, ?)",
            [(name, zlib.crc32(value), value) for name, value in new_states.items()],
        )


def with_checksum(row: StoredRow) -> tuple[int, int, int, bytes]:
    return row.number, row.due_ms, zlib.crc32(row.body), row.body


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
