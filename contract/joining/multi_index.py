"""An index with several entries under one key."""

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
Id = TypeVar("Id", bound=Hashable)
V = TypeVar("V")


class MultiIndex(Generic[K, Id, V]):
    """Values by key and id; a key's entries are in insertion order, and a key without entries takes no memory."""

    def __init__(self) -> None:
        self._entries: dict[K, dict[Id, V]] = {}

    def add(self, key: K, ident: Id, value: V) -> int:
        """Add an entry; returns how many the key has now."""
        entries = self._entries.setdefault(key, {})
        entries[ident] = value
        return len(entries)

    def entries(self, key: K) -> Mapping[Id, V]:
        """The entries of a key, not copied."""
        return self._entries.get(key, {})

    def oldest(self, key: K) -> Id:
        """The id that was added to the key first."""
        return next(iter(self._entries[key]))

    def pop(self, key: K) -> Mapping[Id, V]:
        """Remove and return the entries of a key."""
        return self._entries.pop(key, {})

    def remove(self, key: K, ident: Id) -> None:
        """Remove an entry that is there."""
        entries = self._entries[key]
        del entries[ident]
        if not entries:
            del self._entries[key]
