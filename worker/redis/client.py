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
from worker.redis.resp import BrokenReply, Hashes, ReplyReader

# What will pass, or what someone must mend while the worker holds: see docs/keys.md. The words begin those errors that
# redis-py has no class for.
TRANSIENT_PREFIXES = ("BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE")
TRANSIENT_ERRORS = (
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
PAGE_SIZE: Final = 1_000  # keys that a scan looks at in one call
log = logging.getLogger(__name__)


class PermissionDenied(Unavailable):
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
        return self._check_replies(self._send(commands))

    def run_script(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """The replies to one script called with each pair of keys and arguments, sent at once."""
        sha = self._shas.get(source) or self._load_script(source)
        commands = [("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = self._send(commands)
        # A server that was restarted or flushed forgot it, one of a cluster that is new never had it.
        missing = [n for n, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missing:
            self._load_script(source)
            for number, reply in zip(missing, self._send([commands[n] for n in missing]), strict=True):
                replies[number] = reply
        return self._check_replies(replies)

    def pipeline_then(self, commands: Sequence[Sequence[Any]], last: Sequence[Any]) -> list[Any]:
        """The replies to all commands, and to one that is carried out after all of them."""
        return self.pipeline([*commands, last])

    def read_hashes(self, keys: Sequence[str], last: Sequence[Any] | None = None) -> tuple[Hashes, Any]:
        """All fields of these hashes as columns, and the reply to a command that is carried out after them."""
        last_commands = [] if last is None else [last]
        with self._translate_errors(), self.connection() as connection:
            connection.send_packed_command([pack_hgetall(keys), pack_commands(last_commands)])
            hashes, error, rest = self._reader.read(len(keys), make_receiver(connection))
            connection._parser._reader.feed(rest)
            replies = read_replies(connection, len(last_commands))
        if error is not None:
            replies.append(BaseParser.parse_error(error))  # type: ignore[no-untyped-call]
        return hashes, (*self._check_replies(replies), None)[0]

    def scan(self, prefix: str) -> Iterator[list[str]]:
        """The keys that begin so, page by page; those that are there all the time come at least once."""
        for server in self.servers():
            yield from server.scan_server(prefix)

    def scan_server(self, prefix: str) -> Iterator[list[str]]:
        """`scan`, of this server alone."""
        pattern, cursor = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*", b"0"
        while True:
            ((cursor, page),) = self.pipeline([("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE_SIZE)])
            yield [key.decode(errors="replace") for key in page]
            if cursor == b"0":
                return

    def set_if_absent(
        self, items: Sequence[tuple[str, bytes]], ttl_s: int, first: Sequence[Sequence[Any]] = ()
    ) -> list[bytes | None]:
        """Set each key that is absent; the reply is what was there before, or None. `first`: commands sent before."""
        sets = [("SET", key, value, "NX", "GET", "EX", ttl_s) for key, value in items]
        return self.pipeline([*first, *sets])[len(first) :]

    def check(self) -> None:
        """Raise `BadConfig` if a server may silently throw keys away; `Unavailable` if one does not answer."""
        if errors := [error for server in self.servers() for error in server.find_config_errors()]:
            raise BadConfig(errors)

    def find_config_errors(self) -> list[str]:
        """What is wrong with how this server is set up."""
        try:
            reply = self.pipeline([("CONFIG", "GET", "maxmemory-policy"), ("CONFIG", "GET", "maxmemory")])
        except (PermissionDenied, redis.ResponseError) as error:  # a managed server, or a user without this right
            log.warning("Going on; Redis %s should run `noeviction`, and does not tell: %s", self.name, error)
            return []
        settings = dict(to_pairs(reply[0]) + to_pairs(reply[1]))
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
        connection: Any = pool.get_connection()
        try:
            yield connection
        except BaseException:
            connection.disconnect()  # what is still to come would be taken for replies to the next commands
            raise
        finally:
            pool.release(connection)

    def _load_script(self, source: str) -> str:
        for server in self.servers():
            (sha,) = server.pipeline([("SCRIPT", "LOAD", source)])
            self._shas[source] = sha.decode()
        return self._shas[source]

    def _send(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The replies to all commands, with the errors of single commands among them."""
        with self._translate_errors():
            return self._exchange(commands)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (*TRANSIENT_ERRORS, OSError, BrokenReply) as error:
            # A reset while reading comes from the socket, without another name.
            raise Unavailable(f"Redis {self.name} should answer. Found: {error}") from error

    def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send all and read all."""
        with self.connection() as connection:
            connection.send_packed_command([pack_commands(commands)])
            return read_replies(connection, len(commands))

    def _check_replies(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Exception):
                self._raise_error(reply)
        return replies

    def _raise_error(self, error: Exception) -> None:
        """Raise what a command was answered with, by what the caller does next."""
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise PermissionDenied(f"Redis {self.name} should allow what a worker does. Found: {error}") from error
        if isinstance(error, TRANSIENT_ERRORS) or str(error).startswith(TRANSIENT_PREFIXES):
            raise Unavailable(f"Redis {self.name} should take commands. Found: {error}") from error
        if isinstance(error, redis.exceptions.MovedError):
            raise BadConfig([f"`redis.cluster` should be true where {self.name} is one. Found false."]) from error
        raise error


def pack_commands(commands: Sequence[Sequence[Any]]) -> bytes:
    """Commands as they go over the wire.

    Thousands of profiles are read in a batch, and redis-py's own pipelines cost several microseconds a command, so
    hiredis packs and parses here without them.
    """
    return b"".join(map(hiredis.pack_command, map(tuple, commands)))


def pack_hgetall(keys: Sequence[str]) -> bytes:
    """HGETALL of each key, as it goes over the wire."""
    text = "".join([f"*2\r\n$7\r\nHGETALL\r\n${len(key)}\r\n{key}\r\n" for key in keys])
    return text.encode() if text.isascii() else pack_commands([("HGETALL", key) for key in keys])


def make_receiver(connection: Any) -> Callable[[memoryview], int]:
    """What fills the next bytes of a connection in and tells how many."""

    def receive(buffer: memoryview) -> int:
        received: int = connection._sock.recv_into(buffer)
        if not received:
            raise redis.ConnectionError("the server closed the connection")
        return received

    return receive


def read_replies(connection: Any, count: int) -> list[Any]:
    """The next replies on a connection: what its `read_response` gives, without its cost for each."""
    parser, replies = connection._parser, list[Any]()
    gets = parser._reader.gets
    for _ in range(count):
        while (reply := gets()) is NOT_ENOUGH_DATA:
            parser.read_from_socket()
        replies.append(reply)
    return replies


def to_pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """A reply of names and values, which is a map or a flat list by the protocol's version."""
    if isinstance(reply, dict):
        return [(as_bytes(k), as_bytes(v)) for k, v in reply.items()]
    return list(zip(reply[::2], reply[1::2], strict=True))


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
