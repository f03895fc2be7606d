"""A row store in memory: the twin of the one on disk, for tests of what the joiner does with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from contract.joining.row_store import RowTable, StoredRow, TableChanges


@dataclass
class MemoryTable:
    """The rows of one kind by number."""

    rows: dict[int, StoredRow] = field(default_factory=dict)
    reads: int = 0

    def find(self, value: int) -> Sequence[StoredRow]:
        return self._select(row for row in self.rows.values() if value in row.hashes)

    def read_due(self, before_ms: int, after: tuple[int, int], limit: int) -> Sequence[StoredRow]:
        self.reads += 1
        due = [row for row in self.rows.values() if after < (row.due_ms, row.number) and row.due_ms < before_ms]
        return sorted(due, key=lambda row: (row.due_ms, row.number))[:limit]

    def first_due_ms(self, from_ms: int) -> int | None:
        return min((row.due_ms for row in self.rows.values() if row.due_ms >= from_ms), default=None)

    def read_all(self) -> Sequence[StoredRow]:
        return self._select(self.rows.values())

    def _select(self, rows: Iterable[StoredRow]) -> list[StoredRow]:
        self.reads += 1
        return sorted(rows, key=lambda row: row.number)


@dataclass
class MemoryRows:
    """Tables and states as of the last commit."""

    tables: dict[str, MemoryTable] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)

    def table(self, name: str) -> RowTable:
        return self.tables.setdefault(name, MemoryTable())

    def read_state(self, name: str) -> bytes | None:
        return self.states.get(name)

    def commit(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None:
        for change in changes:
            rows = self.tables.setdefault(change.table, MemoryTable()).rows
            for number in change.deleted:
                del rows[number]
            rows |= {row.number: row for row in change.added}
            rows |= {row.number: row._replace(hashes=rows[row.number].hashes) for row in change.updated}
            self.states[change.table] = change.state
        self.states |= states
