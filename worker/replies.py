"""Replies to HGETALL as columns, straight from the bytes of the wire.

A batch reads thousands of profiles with several slices each; one Python object for each field and each slice would cost
more than the fold. So the bytes are counted while they come, cut once all are there, and only distinct names of fields
become objects. Source: the Redis serialization protocol, version 2, https://redis.io/docs/latest/develop/reference/protocol-spec.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
AT, REPLIES, ELEMENTS, FIELDS, ERROR, ERROR_END, BROKEN = range(7)  # how far `follow` is
ROOM: Final = 1 << 20  # bytes to begin with, doubled as needed
ROOM_KEPT: Final = 1 << 25  # what a batch larger than others has needed is given back
STAR, DOLLAR, MINUS, RETURN, LINE, ZERO = (np.uint8(ord(sign)) for sign in "*$-\r\n0")

compiled = numba.njit(cache=True, nogil=True)


class BrokenReply(Exception):
    """What came is no reply to HGETALL."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """F fields of the hashes that were asked for, in the order of the replies."""

    names: list[str]  # the distinct names of fields
    hash: npt.NDArray[np.int64]  # (F) which of the hashes
    name: npt.NDArray[np.int64]  # (F) index into `names`
    lengths: npt.NDArray[np.int64]  # (F) of the values, in bytes
    values: memoryview  # end to end


class ReplyReader:
    """Reads replies into a buffer of its own, which is kept from one time to the next."""

    def __init__(self) -> None:
        self._buffer: Bytes = np.empty(ROOM, np.uint8)

    def read(self, count: int, receive: Callable[[memoryview], int]) -> tuple[Hashes, str | None, bytes]:
        """The next `count` replies, the first error among them, and what came behind them.

        `receive` fills bytes in and tells how many. Raises `BrokenReply` for what is neither a hash nor an error.
        """
        state, end = np.zeros(BROKEN + 1, np.int64), 0
        state[REPLIES] = count
        while state[REPLIES]:
            if end == len(self._buffer):
                self._buffer = np.concatenate((self._buffer, np.empty_like(self._buffer)))
            end += receive(self._buffer[end:].data)
            follow(self._buffer, end, state)
            if state[BROKEN]:
                raise BrokenReply(f"a reply that is no hash: {self._text(state[AT], end)[:80]!r}")
        error = self._text(state[ERROR], state[ERROR_END]) if state[ERROR] else None
        return self._cut(count, int(state[FIELDS])), error, self._end(int(state[AT]), end)

    def _cut(self, count: int, fields: int) -> Hashes:
        spans = np.empty((fields, 4), np.int64)
        found = mark(self._buffer, count, spans)
        name, first = number(self._buffer, spans)
        names = [self._text(spans[f, 0], spans[f, 0] + spans[f, 1]) for f in first.tolist()]
        return Hashes(names, found, name, spans[:, 3].copy(), gather(self._buffer, spans).data)

    def _text(self, start: int, end: int) -> str:
        return self._buffer[start:end].tobytes().decode(errors="replace")

    def _end(self, start: int, end: int) -> bytes:
        left = self._buffer[start:end].tobytes()
        if len(self._buffer) > ROOM_KEPT:
            self._buffer = np.empty(ROOM, np.uint8)
        return left


def hashes_of(replies: Sequence[Sequence[bytes]]) -> Hashes:
    """The columns of hashes that are at hand as flat lists of names and values."""
    names: dict[bytes, int] = {}
    name = [names.setdefault(field, len(names)) for reply in replies for field in reply[::2]]
    values = [value for reply in replies for value in reply[1::2]]
    return Hashes(
        names=[field.decode(errors="replace") for field in names],
        hash=np.repeat(np.arange(len(replies)), [len(reply) // 2 for reply in replies]),
        name=np.array(name, np.int64),
        lengths=np.array([len(value) for value in values], np.int64),
        values=memoryview(b"".join(values)),
    )


@compiled
def line_end(buffer, at, end):  # type: ignore[no-untyped-def]
    """Where the line that begins at `at` ends, or -1 if that has not come yet."""
    while at < end - 1:
        if buffer[at] == RETURN and buffer[at + 1] == LINE:
            return at
        at += 1
    return -1


@compiled
def whole(buffer, at, end):  # type: ignore[no-untyped-def]
    """The number that stands in decimal between two places."""
    if buffer[at] == MINUS:
        return np.int64(-1)
    found = np.int64(0)
    for k in range(at, end):
        found = 10 * found + np.int64(buffer[k] - ZERO)
    return found


@compiled
def follow(buffer, end, state):  # type: ignore[no-untyped-def]
    """Go on over what has come, up to the last whole element before `end`."""
    while state[REPLIES] > 0:
        at = state[AT]
        stop = line_end(buffer, at, end)
        if stop < 0:
            return
        if state[ELEMENTS] > 0:
            size = whole(buffer, at + 1, stop)
            if buffer[at] != DOLLAR or size < 0:
                state[BROKEN] = 1
                return
            if stop + 2 + size + 2 > end:
                return
            state[AT], state[ELEMENTS] = stop + 4 + size, state[ELEMENTS] - 1
        else:
            if buffer[at] == STAR:
                state[ELEMENTS] = max(whole(buffer, at + 1, stop), 0)
                state[FIELDS] += state[ELEMENTS] // 2
            elif buffer[at] == MINUS:
                if state[ERROR] == 0:
                    state[ERROR], state[ERROR_END] = at + 1, stop
            else:
                state[BROKEN] = 1
                return
            state[AT] = stop + 2
        if state[ELEMENTS] == 0:
            state[REPLIES] -= 1


@compiled
def mark(buffer, count, spans):  # type: ignore[no-untyped-def]
    """Where each field's name and value begin and how long they are (F, 4); returns whose field it is (F)."""
    found, at, field = np.empty(len(spans), np.int64), 0, 0
    for reply in range(count):
        stop = line_end(buffer, at, len(buffer))
        elements = whole(buffer, at + 1, stop) if buffer[at] == STAR else 0
        at = stop + 2
        for k in range(elements):
            stop = line_end(buffer, at, len(buffer))
            size = whole(buffer, at + 1, stop)
            spans[field, 2 * (k % 2)], spans[field, 2 * (k % 2) + 1] = stop + 2, size
            found[field] = reply
            field += k % 2
            at = stop + 4 + size
    return found


@compiled
def alike(buffer, a, b, size):  # type: ignore[no-untyped-def]
    same = 0
    while same < size and buffer[a + same] == buffer[b + same]:
        same += 1
    return same == size


@compiled
def number(buffer, spans):  # type: ignore[no-untyped-def]
    """Number the distinct names; returns the number of each field's (F), and a field that has each name."""
    size = 16
    while size < 2 * len(spans):
        size *= 2
    table, name, first = np.zeros(size, np.int64), np.empty(len(spans), np.int64), np.empty(len(spans), np.int64)
    distinct = 0
    for f in range(len(spans)):
        start, length = spans[f, 0], spans[f, 1]
        mixed = np.uint64(14695981039346656037)  # FNV-1a: short names, and no need to withstand anybody
        for k in range(length):
            mixed = (mixed ^ np.uint64(buffer[start + k])) * np.uint64(1099511628211)
        at = np.int64(mixed & np.uint64(size - 1))
        while table[at] > 0:
            other = first[table[at] - 1]
            if spans[other, 1] == length and alike(buffer, spans[other, 0], start, length):
                break
            at = (at + 1) & (size - 1)
        if table[at] == 0:
            first[distinct] = f
            distinct += 1
            table[at] = distinct
        name[f] = table[at] - 1
    return name, first[:distinct]


@compiled
def gather(buffer, spans):  # type: ignore[no-untyped-def]
    """The values, end to end."""
    values, at = np.empty(spans[:, 3].sum(), np.uint8), np.uint64(0)
    for f in range(len(spans)):
        start, size = np.uint64(spans[f, 2]), np.uint64(spans[f, 3])
        for k in range(size):  # nine times faster than slices: unsigned places need no look whether they are negative
            values[at + k] = buffer[start + k]
        at += size
    return values
