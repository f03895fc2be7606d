"""Commands and replies as bytes on one of redis-py's connections.

A batch reads thousands of profiles, and redis-py's own pipelines cost several microseconds per command. So hiredis
packs and parses here, on redis-py's socket. Only this file uses names that redis-py does not promise (`_sock` and the
parser's `parse_error`); `open_wire` tries them once, and falls back to redis-py's public calls where they changed.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import hiredis
import redis
from redis.connection import DefaultParser

from worker.redis.resp import Hashes, ReplyReader, to_hashes

log = logging.getLogger(__name__)
READ_BYTES: Final = 65_536
INCOMPLETE: Final = object()
Commands: TypeAlias = Sequence[Sequence[Any]]
RAW_ERRORS: Final = (AttributeError, TypeError, ImportError)  # what a name that is gone, or has changed, raises


class RawWire:
    """Replies parsed from the socket. One connection at a time; `reset` after an error."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_BYTES)
        self._hash_reader = ReplyReader()
        self.reset()

    def reset(self) -> None:
        """Drop what an interrupted read has left."""
        self._parser = hiredis.Reader(replyError=parse_error, notEnoughData=INCOMPLETE)

    def read(self, connection: Any, count: int) -> list[Any]:
        """The next replies, errors among them."""
        replies, gets = list[Any](), self._parser.gets
        for _ in range(count):
            while (reply := gets()) is INCOMPLETE:
                received = receive(connection, memoryview(self._buffer))
                self._parser.feed(self._buffer, 0, received)  # type: ignore[arg-type]  # takes any buffer
            replies.append(reply)
        return replies

    def read_hashes(self, connection: Any, count: int, others: int) -> tuple[Hashes, list[Any]]:
        """The next `count` replies as columns, and the `others` after them; an error of a hash comes last."""
        hashes, error, rest = self._hash_reader.read(count, lambda buffer: receive(connection, buffer))
        self._parser.feed(rest)
        replies = self.read(connection, others)
        return hashes, replies if error is None else [*replies, parse_error(error)]


class PublicWire:
    """The same through redis-py's public calls: several times slower."""

    def reset(self) -> None:
        """Nothing is left: a connection drops its own buffer."""

    def read(self, connection: Any, count: int) -> list[Any]:
        return [self._read_one(connection) for _ in range(count)]

    def read_hashes(self, connection: Any, count: int, others: int) -> tuple[Hashes, list[Any]]:
        replies = self.read(connection, count)
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        hashes = to_hashes([[] if isinstance(reply, Exception) else reply for reply in replies])
        return hashes, [*self.read(connection, others), *errors[:1]]

    @staticmethod
    def _read_one(connection: Any) -> Any:
        try:
            return connection.read_response(disable_decoding=True)
        except redis.ResponseError as error:
            return error


Wire: TypeAlias = RawWire | PublicWire


def open_wire(connection: Any) -> Wire:
    """The raw wire where one exchange over it succeeds, else the public one."""
    try:
        wire = RawWire()
        connection.send_packed_command([pack_commands([("PING",)])])
        wire.read(connection, 1)
    except RAW_ERRORS as error:
        log.warning("Reading Redis more slowly: redis-py %s has other private names: %s", redis.__version__, error)
        connection.disconnect()  # the reply to PING is still to come
        return PublicWire()
    return wire


def parse_error(text: str) -> Exception:
    """The exception of an error reply, of redis-py's class for it."""
    error: Exception = DefaultParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


def receive(connection: Any, buffer: memoryview) -> int:
    """Read the next bytes of a connection into `buffer`; returns their number."""
    try:
        received: int = connection._sock.recv_into(buffer)
    except TimeoutError as error:
        raise redis.TimeoutError("Timeout reading from socket") from error
    if not received:
        raise redis.ConnectionError("the server closed the connection")
    return received


def pack_commands(commands: Commands) -> bytes:
    return b"".join(map(hiredis.pack_command, map(tuple, commands)))


def pack_hgetall(keys: Sequence[str]) -> bytes:
    """HGETALL of each key."""
    text = "".join([f"*2\r\n$7\r\nHGETALL\r\n${len(key)}\r\n{key}\r\n" for key in keys])
    return text.encode() if text.isascii() else pack_commands([("HGETALL", key) for key in keys])
