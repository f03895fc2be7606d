"""The interface of a store on disk for rows that wait: tables of encoded rows, and small states, committed together.

The store is a cache of the log. It never decides what is joined: a joiner without one reads the log instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from contract.errors import ShopstreamError


class BrokenStore(ShopstreamError):
    """The store cannot be read as it was written: it is thrown away, and the log is read again."""


class StoredRow(NamedTuple):
    """A row that waits. `number` rises in the order of addition and is unique in its table.

    `hashes`: 63-bit hashes of what it can be found by; empty for a row that was read.
    """

    number: int
    due_ms: int
    body: bytes
    hashes: tuple[int, ...] = ()


class RowTable(Protocol):
    """The committed rows of one kind. Each call raises `BrokenStore` for rows that cannot be read."""

    def find(self, value: int) -> Sequence[StoredRow]:
        """The rows that have this hash, in the order of addition."""

    def read_due(self, before_ms: int, after: tuple[int, int], limit: int) -> Sequence[StoredRow]:
        """The first rows that are due before a time, by due time and number, after those of `after`."""

    def first_due_ms(self, from_ms: int) -> int | None:
        """The earliest due time at or after `from_ms`."""

    def read_all(self) -> Sequence[StoredRow]:
        """Every row, in the order of addition; for tables that fit in memory."""


@dataclass(slots=True)
class TableChanges:
    """What has changed in a table since its last commit; `state` replaces its state."""

    table: str
    state: bytes
    added: list[StoredRow] = field(default_factory=list)
    updated: list[StoredRow] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)  # numbers


class RowStore(Protocol):
    """Tables by name, each with a state."""

    def table(self, name: str) -> RowTable:
        """A table; empty if nothing was committed to it."""

    def read_state(self, name: str) -> bytes | None:
        """The state that was committed under this name; None without one."""
