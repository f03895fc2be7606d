"""The door to Redis: pipelines, scripts, and foreign errors by what the caller does next. `redis_cluster` is its like.

Keys (docs/keys.md has the whole table; PREFIX is `shop:` by default):

    PREFIX profile:{BUCKET}:KIND:ID   hash    source -> slice, 472 bytes     written by the worker that owns the source
    PREFIX merged:{BUCKET}            hash    source -> offset (exclusive)   written with the slices, or not at all
    PREFIX begins                     hash    source -> offset               where a rebuilt state begins
    PREFIX generations                hash    layout -> generation           which build of the state serves
    PREFIX decision:EVENT             string  JSON, and the scored row       claimed once, before it is published
    PREFIX rec:USER, rec:popular...   string  JSON                           caches
"""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import hiredis
import redis
from redis._parsers.base import BaseParser
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.errors import BadConfig, Unavailable
from worker.replies import BrokenReply, Hashes, ReplyReader

# What will pass, or what someone must mend while the worker holds: see docs/keys.md. The words begin those errors that
# redis-py has no class for.
PASSING = ("BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE")
PASSING_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.AuthenticationError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.NoScriptError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
)
PAGE: Final = 1_000  # keys that a scan looks at in one call
log = logging.getLogger(__name__)


class Refused(Unavailable):
    """This user lacks a right: waited for like a server that is away, since someone may grant it."""


class RedisClient:
    """A connection to one Redis, used by one thread."""

    shell = "redis-cli"  # what a human runs to send it commands

    def __init__(self, *, url: str, timeout_s: float) -> None:
        self.name = url.rpartition("@")[2].partition("?")[0]
        self.host = urlsplit(url).hostname or "localhost"
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._shas: dict[str, str] = {}
        self._reader = ReplyReader()

    def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to all commands, sent at once; raises `Unavailable` if one of them met no working server."""
        return self._accepted(self._answers(commands))

    def scripts(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """The replies to one script called with each pair of keys and arguments, sent at once."""
        sha = self._shas.get(source) or self._load(source)
        commands = [("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = self._answers(commands)
        # A server that was restarted or flushed forgot it, one of a cluster that is new never had it.
        missed = [n for n, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missed:
            self._load(source)
            for number, reply in zip(missed, self._answers([commands[n] for n in missed]), strict=True):
                replies[number] = reply
        return self._accepted(replies)

    def in_order(self, commands: Sequence[Sequence[Any]], last: Sequence[Any]) -> list[Any]:
        """The replies to all commands, and to one that is carried out after all of them."""
        return self.pipeline([*commands, last])

    def hashes(self, keys: Sequence[str], last: Sequence[Any] | None = None) -> tuple[Hashes, Any]:
        """All fields of these hashes as columns, and the reply to a command that is carried out after them."""
        lasts = [] if last is None else [last]
        with self._renamed(), self.connection() as connection:
            connection.send_packed_command([ask_hashes(keys), packed(lasts)])
            found, error, left = self._reader.read(len(keys), source_of(connection))
            connection._parser._reader.feed(left)
            replies = replies_of(connection, len(lasts))
        if error is not None:
            replies.append(BaseParser.parse_error(error))  # type: ignore[no-untyped-call]
        return found, (*self._accepted(replies), None)[0]

    def scan(self, beginning: str) -> Iterator[list[str]]:
        """The keys that begin so, page by page; those that are there all the time come at least once."""
        for server in self.servers():
            yield from server.scan_it(beginning)

    def scan_it(self, beginning: str) -> Iterator[list[str]]:
        """`scan`, of this server alone."""
        pattern, cursor = re.sub(r"([*?\[\]\\^])", r"\\\1", beginning) + "*", b"0"
        while True:
            ((cursor, page),) = self.pipeline([("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)])
            yield [key.decode(errors="replace") for key in page]
            if cursor == b"0":
                return

    def set_new(
        self, items: Sequence[tuple[str, bytes]], ttl_s: int, first: Sequence[Sequence[Any]] = ()
    ) -> list[bytes | None]:
        """Set each key that is absent; the reply is what was there before, or None. `first`: commands sent before."""
        sets = [("SET", key, value, "NX", "GET", "EX", ttl_s) for key, value in items]
        return self.pipeline([*first, *sets])[len(first) :]

    def check(self) -> None:
        """Raise `BadConfig` if a server may silently throw keys away; `Unavailable` if one does not answer."""
        if errors := [error for server in self.servers() for error in server.mistakes()]:
            raise BadConfig(errors)

    def mistakes(self) -> list[str]:
        """What is wrong with how this server is set up."""
        try:
            reply = self.pipeline([("CONFIG", "GET", "maxmemory-policy"), ("CONFIG", "GET", "maxmemory")])
        except (Refused, redis.ResponseError) as error:  # a managed server, or a user without this right
            log.warning("Going on; Redis %s should run `noeviction`, and does not tell: %s", self.name, error)
            return []
        settings = dict(pairs(reply[0]) + pairs(reply[1]))
        policy, limit = settings.get(b"maxmemory-policy", b"noeviction"), settings.get(b"maxmemory", b"0")
        if policy == b"noeviction" or limit == b"0":
            return []
        return [f"Redis {self.name} should run `noeviction`. Found `{policy.decode()}`."]

    def servers(self) -> Sequence["RedisClient"]:
        """Every server that holds keys, to be asked for what concerns no key."""
        return [self]

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """One of redis-py's connections; it is not used again after an error."""
        pool = self._redis.connection_pool
        taken: Any = pool.get_connection()
        try:
            yield taken
        except BaseException:
            taken.disconnect()  # what is still to come would be taken for replies to the next commands
            raise
        finally:
            pool.release(taken)

    def _load(self, source: str) -> str:
        for server in self.servers():
            (sha,) = server.pipeline([("SCRIPT", "LOAD", source)])
            self._shas[source] = sha.decode()
        return self._shas[source]

    def _answers(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to all commands, with the errors of single commands among them."""
        with self._renamed():
            return self._exchange(commands)

    @contextmanager
    def _renamed(self) -> Iterator[None]:
        try:
            yield
        except (*PASSING_ERRORS, OSError, BrokenReply) as error:
            # A reset while reading comes from the socket, without another name.
            raise Unavailable(f"Redis {self.name} should answer. Found: {error}") from error

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all and read all."""
        with self.connection() as connection:
            connection.send_packed_command([packed(commands)])
            return replies_of(connection, len(commands))

    def _accepted(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                self._refuse(reply)
        return replies

    def _refuse(self, error: Exception) -> None:
        """Raise what a command was answered with, by what the caller does next."""
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise Refused(f"Redis {self.name} should allow what a worker does. Found: {error}") from error
        if isinstance(error, PASSING_ERRORS) or str(error).startswith(PASSING):
            raise Unavailable(f"Redis {self.name} should take commands. Found: {error}") from error
        if isinstance(error, redis.exceptions.MovedError):
            raise BadConfig([f"`redis.cluster` should be true where {self.name} is one. Found false."]) from error
        raise error


def packed(commands: Sequence[Sequence[Any]]) -> bytes:
    """Commands as they go over the wire.

    Thousands of profiles are read in a batch, and redis-py's own pipelines cost several microseconds a command, so
    hiredis packs and parses here without them.
    """
    return b"".join(map(hiredis.pack_command, map(tuple, commands)))


def ask_hashes(keys: Sequence[str]) -> bytes:
    """HGETALL of each key, as it goes over the wire."""
    text = "".join([f"*2\r\n$7\r\nHGETALL\r\n${len(key)}\r\n{key}\r\n" for key in keys])
    return text.encode() if text.isascii() else packed([("HGETALL", key) for key in keys])


def source_of(connection: Any) -> Callable[[memoryview], int]:
    """What fills the next bytes of a connection in and tells how many."""

    def receive(room: memoryview) -> int:
        received: int = connection._sock.recv_into(room)
        if not received:
            raise redis.ConnectionError("the server closed the connection")
        return received

    return receive


def replies_of(connection: Any, count: int) -> list[Any]:
    """The next replies on a connection: what its `read_response` gives, without its cost for each."""
    parser, replies = connection._parser, list[Any]()
    gets = parser._reader.gets
    for _ in range(count):
        while (reply := gets()) is NOT_ENOUGH_DATA:
            parser.read_from_socket()
        replies.append(reply)
    return replies


def pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """A reply of names and values, which is a map or a flat list by the protocol's version."""
    if isinstance(reply, dict):
        return [(as_bytes(k), as_bytes(v)) for k, v in reply.items()]
    return list(zip(reply[::2], reply[1::2], strict=True))


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
