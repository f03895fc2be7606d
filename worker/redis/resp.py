"""Parses replies to HGETALL into columns, straight from the bytes of the socket.

A batch reads thousands of profiles with several slices each; a Python object for each field and slice would cost more
than the fold. So the parser counts elements while bytes arrive, splits them once all have arrived, and makes objects of
the distinct field names only. Source: the Redis serialization protocol, version 2, https://redis.io/docs/latest/develop/reference/protocol-spec.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.compilation import jit

Bytes = npt.NDArray[np.uint8]
POSITION, REPLIES, ELEMENTS, FIELDS, ERROR, ERROR_END, BROKEN = range(7)  # the state of `scan_replies`
BUFFER_BYTES: Final = 1 << 20  # at first; doubled as needed
BUFFER_KEPT_BYTES: Final = 1 << 25  # a larger buffer is released after the batch that needed it
STAR, DOLLAR, MINUS, RETURN, LINE, ZERO = (np.uint8(ord(sign)) for sign in "*$-\r\n0")


class BrokenReply(Exception):
    """The server sent no reply to HGETALL."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """F fields of the requested hashes, in the order of the replies."""

    names: list[str]  # the distinct names of fields
    hash_index: npt.NDArray[np.int64]  # (F) index of the hash
    name_index: npt.NDArray[np.int64]  # (F) index into `names`
    lengths: npt.NDArray[np.int64]  # (F) of the values, in bytes
    values: memoryview  # one after the other


class ReplyReader:
    """Parses replies in a buffer that it reuses."""

    def __init__(self) -> None:
        self._buffer: Bytes = np.empty(BUFFER_BYTES, np.uint8)

    def read(self, count: int, receive: Callable[[memoryview], int]) -> tuple[Hashes, str | None, bytes]:
        """The next `count` replies, the first error among them, and the bytes received after them.

        `receive` fills a buffer and returns the number of bytes. Raises `BrokenReply` for a reply that is neither a
        hash nor an error.
        """
        state, end = np.zeros(BROKEN + 1, np.int64), 0
        state[REPLIES] = count
        while state[REPLIES]:
            if end == len(self._buffer):
                self._buffer = np.concatenate((self._buffer, np.empty_like(self._buffer)))
            end += receive(self._buffer[end:].data)
            scan_replies(self._buffer, end, state)
            if state[BROKEN]:
                raise BrokenReply(f"a reply that is no hash: {self._decode(state[POSITION], end)[:80]!r}")
        error = self._decode(state[ERROR], state[ERROR_END]) if state[ERROR] else None
        return self._to_hashes(count, int(state[FIELDS])), error, self._take_rest(int(state[POSITION]), end)

    def _to_hashes(self, count: int, fields: int) -> Hashes:
        spans = np.empty((fields, 4), np.int64)
        hash_index = locate_fields(self._buffer, count, spans)
        name_index, first = number_names(self._buffer, spans)
        names = [self._decode(spans[f, 0], spans[f, 0] + spans[f, 1]) for f in first.tolist()]
        return Hashes(names, hash_index, name_index, spans[:, 3].copy(), gather_values(self._buffer, spans).data)

    def _decode(self, start: int, end: int) -> str:
        return self._buffer[start:end].tobytes().decode(errors="replace")

    def _take_rest(self, start: int, end: int) -> bytes:
        rest = self._buffer[start:end].tobytes()
        if len(self._buffer) > BUFFER_KEPT_BYTES:
            self._buffer = np.empty(BUFFER_BYTES, np.uint8)
        return rest


def to_hashes(replies: Sequence[Sequence[bytes]]) -> Hashes:
    """The columns of hashes given as flat lists of names and values."""
    names: dict[bytes, int] = {}
    name_index = [names.setdefault(field, len(names)) for reply in replies for field in reply[::2]]
    values = [value for reply in replies for value in reply[1::2]]
    return Hashes(
        names=[field.decode(errors="replace") for field in names],
        hash_index=np.repeat(np.arange(len(replies)), [len(reply) // 2 for reply in replies]),
        name_index=np.array(name_index, np.int64),
        lengths=np.array([len(value) for value in values], np.int64),
        values=memoryview(b"".join(values)),
    )


@jit
def find_line_end(buffer, position, end):  # type: ignore[no-untyped-def]
    """The end of the line that begins at `position`, or -1 if it has not arrived yet."""
    while position < end - 1:
        if buffer[position] == RETURN and buffer[position + 1] == LINE:
            return position
        position += 1
    return -1


@jit
def parse_integer(buffer, start, end):  # type: ignore[no-untyped-def]
    """The decimal number between two positions; -1 for a negative one."""
    if buffer[start] == MINUS:
        return np.int64(-1)
    value = np.int64(0)
    for k in range(start, end):
        value = 10 * value + np.int64(buffer[k] - ZERO)
    return value


@jit
def scan_replies(buffer, end, state):  # type: ignore[no-untyped-def]
    """Go on to the last whole element before `end`."""
    while state[REPLIES] > 0:
        position = state[POSITION]
        line_stop = find_line_end(buffer, position, end)
        if line_stop < 0:
            return
        if state[ELEMENTS] > 0:
            size = parse_integer(buffer, position + 1, line_stop)
            if buffer[position] != DOLLAR or size < 0:
                state[BROKEN] = 1
                return
            if line_stop + 2 + size + 2 > end:
                return
            state[POSITION], state[ELEMENTS] = line_stop + 4 + size, state[ELEMENTS] - 1
        else:
            if buffer[position] == STAR:
                state[ELEMENTS] = max(parse_integer(buffer, position + 1, line_stop), 0)
                state[FIELDS] += state[ELEMENTS] // 2
            elif buffer[position] == MINUS:
                if state[ERROR] == 0:
                    state[ERROR], state[ERROR_END] = position + 1, line_stop
            else:
                state[BROKEN] = 1
                return
            state[POSITION] = line_stop + 2
        if state[ELEMENTS] == 0:
            state[REPLIES] -= 1


@jit
def locate_fields(buffer, count, spans):  # type: ignore[no-untyped-def]
    """Write start and length of each field's name and value (F, 4); returns the index of its hash (F)."""
    hash_index, position, field = np.empty(len(spans), np.int64), 0, 0
    for reply in range(count):
        line_stop = find_line_end(buffer, position, len(buffer))
        elements = parse_integer(buffer, position + 1, line_stop) if buffer[position] == STAR else 0
        position = line_stop + 2
        for k in range(elements):
            line_stop = find_line_end(buffer, position, len(buffer))
            size = parse_integer(buffer, position + 1, line_stop)
            spans[field, 2 * (k % 2)], spans[field, 2 * (k % 2) + 1] = line_stop + 2, size
            hash_index[field] = reply
            field += k % 2
            position = line_stop + 4 + size
    return hash_index


@jit
def bytes_equal(buffer, a, b, size):  # type: ignore[no-untyped-def]
    matched = 0
    while matched < size and buffer[a + matched] == buffer[b + matched]:
        matched += 1
    return matched == size


@jit
def number_names(buffer, spans):  # type: ignore[no-untyped-def]
    """Number the distinct names; returns the number of each field's name (F), and one field for each name."""
    size = 16
    while size < 2 * len(spans):
        size *= 2
    table, name_index, first = np.zeros(size, np.int64), np.empty(len(spans), np.int64), np.empty(len(spans), np.int64)
    distinct = 0
    for f in range(len(spans)):
        start, length = spans[f, 0], spans[f, 1]
        digest = np.uint64(14695981039346656037)  # FNV-1a: names are short and trusted
        for k in range(length):
            digest = (digest ^ np.uint64(buffer[start + k])) * np.uint64(1099511628211)
        slot = np.int64(digest & np.uint64(size - 1))
        while table[slot] > 0:
            other = first[table[slot] - 1]
            if spans[other, 1] == length and bytes_equal(buffer, spans[other, 0], start, length):
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] == 0:
            first[distinct] = f
            distinct += 1
            table[slot] = distinct
        name_index[f] = table[slot] - 1
    return name_index, first[:distinct]


@jit
def gather_values(buffer, spans):  # type: ignore[no-untyped-def]
    """The values, one after the other."""
    values, position = np.empty(spans[:, 3].sum(), np.uint8), np.uint64(0)
    for f in range(len(spans)):
        start, size = np.uint64(spans[f, 2]), np.uint64(spans[f, 3])
        for k in range(size):  # nine times faster than slices: unsigned indexes need no check for negative values
            values[position + k] = buffer[start + k]
        position += size
    return values
