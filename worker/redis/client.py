"""The Redis client: pipelines and scripts, with redis-py's errors sorted by what the caller does next.

docs/keys.md has every key. `worker.redis.cluster` is the same for a Redis Cluster.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from contract.errors import BadConfig, StaleState, Unavailable
from worker.redis.resp import BrokenReply, Hashes
from worker.redis.wire import Commands, Wire, open_wire, pack_commands, pack_hgetall

# These pass, or an operator repairs them while the worker waits: see docs/keys.md. redis-py has no class for the errors
# that begin with these words.
UNAUTHENTICATED = "Protocol error: unauthenticated"  # of a command too long for one who has not given the password
TRANSIENT_PREFIXES = ("BUSY", "MISCONF", "NOMASTERLINK", "NOREPLICAS", "UNKILLABLE", UNAUTHENTICATED)
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
# After a failover the name or virtual address leads to another server, while this one still answers so.
DEMOTED_ERRORS = (redis.ReadOnlyError, redis.BusyLoadingError, redis.exceptions.MasterDownError)
DEMOTED_PREFIXES = ("NOMASTERLINK", "NOREPLICAS")
PAGE_SIZE: Final = 1_000  # keys that one call of a scan examines
# Without this condition, a key that another process has just replaced would be deleted.
DELETE_OTHER_TYPE: Final = """
local held = redis.call('TYPE', KEYS[1]).ok
if held == 'none' or held == ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
"""
log = logging.getLogger(__name__)


class PermissionDenied(Unavailable):
    """This user lacks a permission: retried like an unreachable server, since an operator may grant it."""


class WrongType(StaleState):
    """A key holds another type than workers write; `key` is empty where a script met it."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RedisClient:
    """A connection to one Redis, used by one thread."""

    shell = "redis-cli"  # with which an operator sends it commands
    spans_slots = True  # whether one script may use any keys
    script_items_max = 256  # of a script that works item by item: Redis serves no other command in the meantime

    def __init__(self, *, url: str, timeout_s: float) -> None:
        self.name = url.rpartition("@")[2].partition("?")[0]
        self.host = urlsplit(url).hostname or "localhost"
        self._redis = redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._shas: dict[str, str] = {}
        self._wire: Wire | None = None  # chosen on the first connection

    def pipeline(self, commands: Commands) -> list[Any]:
        """Send all commands at once and return their replies; raises `Unavailable` if a server could not serve one."""
        return self._check_replies(self._send(commands), commands)

    def delete_other_type(self, key: str, expected: str) -> bool:
        """Delete a key that holds another type than `expected`; whether it did."""
        return bool(self.run_script(DELETE_OTHER_TYPE, [([key], [expected])])[0])

    def run_script(self, source: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> list[Any]:
        """Call one script with each pair of keys and arguments, all at once; returns the replies."""
        sha = self._shas.get(source) or self._load_script(source)
        commands = [("EVALSHA", sha, len(keys), *keys, *arguments) for keys, arguments in calls]
        replies = self._send(commands)
        # A server that was restarted or flushed has lost the script, a new one of a cluster never had it.
        missing = [n for n, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missing:
            self._load_script(source)
            for number, reply in zip(missing, self._send([commands[n] for n in missing]), strict=True):
                replies[number] = reply
        return self._check_replies(replies)

    def pipeline_then(self, commands: Commands, last: Sequence[Any]) -> list[Any]:
        """The replies to all commands, and to one that is executed after all of them."""
        return self.pipeline([*commands, last])

    def read_hashes(self, keys: Sequence[str], last: Sequence[Any] | None = None) -> tuple[Hashes, Any]:
        """All fields of these hashes as columns, and the reply to a command that is executed after them."""
        last_commands = [] if last is None else [last]
        with self._translate_errors(), self.connection() as connection:
            connection.send_packed_command([pack_hgetall(keys), pack_commands(last_commands)])
            hashes, replies = self.wire.read_hashes(connection, len(keys), len(last_commands))
            disconnect_if_demoted(connection, replies)
        self._check_replies(replies, last_commands)
        return hashes, replies[0] if replies else None

    def scan(self, prefix: str) -> Iterator[list[str]]:
        """The keys with this prefix, page by page; a key that exists during the whole scan comes at least once."""
        for server in self.servers():
            yield from server.scan_server(prefix)

    def scan_server(self, prefix: str) -> Iterator[list[str]]:
        """`scan` of this server only."""
        pattern, cursor = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + "*", b"0"
        while True:
            ((cursor, page),) = self.pipeline([("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE_SIZE)])
            yield [key.decode(errors="replace") for key in page]
            if cursor == b"0":
                return

    def check(self) -> None:
        """Raise `BadConfig` if a server may evict keys; `Unavailable` if one does not answer."""
        if errors := [error for server in self.servers() for error in server.find_config_errors()]:
            raise BadConfig(errors)

    def find_config_errors(self) -> list[str]:
        """What is wrong with the configuration of this server."""
        try:
            reply = self.pipeline([("CONFIG", "GET", "maxmemory-policy"), ("CONFIG", "GET", "maxmemory")])
        except (PermissionDenied, redis.ResponseError) as error:  # a managed server, or a user without permission
            log.warning("Redis %s should run `noeviction`. Its policy cannot be read, going on: %s", self.name, error)
            return []
        settings = dict(to_pairs(reply[0]) + to_pairs(reply[1]))
        policy, limit = settings.get(b"maxmemory-policy", b"noeviction"), settings.get(b"maxmemory", b"0")
        if policy == b"noeviction" or limit == b"0":
            return []
        return [f"Redis {self.name} should run `noeviction`. Found `{policy.decode()}`."]

    def servers(self) -> Sequence["RedisClient"]:
        """Every server that holds keys, for commands without a key."""
        return [self]

    def close(self) -> None:
        self._redis.close()

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """One of redis-py's connections; after an error it connects again."""
        pool = self._redis.connection_pool
        connection: Any = pool.get_connection()
        try:
            if self._wire is None:
                self._wire = open_wire(connection)
            yield connection
        except BaseException:
            connection.disconnect()  # replies still to come would be taken for those to the next commands
            if self._wire is not None:
                self._wire.reset()
            raise
        finally:
            pool.release(connection)

    @property
    def wire(self) -> Wire:
        """How to read replies, on a connection of `connection`."""
        assert self._wire is not None
        return self._wire

    def _load_script(self, source: str) -> str:
        for server in self.servers():
            (sha,) = server.pipeline([("SCRIPT", "LOAD", source)])
            self._shas[source] = sha.decode()
        return self._shas[source]

    def _send(self, commands: Commands) -> list[Any]:
        """The replies to all commands, errors of single commands among them."""
        with self._translate_errors():
            return self._exchange(commands)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except (*TRANSIENT_ERRORS, OSError, BrokenReply, redis.exceptions.InvalidResponse) as error:
            # A reset while reading comes from the socket as an OSError; what is no Redis answers in another protocol.
            raise Unavailable(f"Redis {self.name} should answer. Found: {error}") from error
        except redis.exceptions.NoPermissionError as error:
            raise PermissionDenied(f"Redis {self.name} should permit a connection. Found: {error}") from error
        except redis.ResponseError as error:  # to the first commands of a connection: others are among the replies
            raise BadConfig([f"`redis.url` should name a database of Redis {self.name}. Found: {error}"]) from error

    def _exchange(self, commands: Commands) -> list[Any]:
        with self.connection() as connection:
            connection.send_packed_command([pack_commands(commands)])
            replies = self.wire.read(connection, len(commands))
            disconnect_if_demoted(connection, replies)
            return replies

    def _check_replies(self, replies: list[Any], commands: Commands = ()) -> list[Any]:
        """The replies; raises the first error among them. `commands`: those that have a key in the second place."""
        for number, reply in enumerate(replies):
            if isinstance(reply, Exception):
                self._raise_error(reply, "".join(map(str, commands[number][1:2])) if number < len(commands) else "")
        return replies

    def _raise_error(self, error: Exception, key: str = "") -> None:
        """Raise the error of a reply as what the caller does next."""
        if str(error).startswith("WRONGTYPE"):
            raise WrongType("A key in Redis should have the type that workers write. Found another.", key) from error
        if isinstance(error, redis.exceptions.NoPermissionError):
            raise PermissionDenied(f"Redis {self.name} should permit a worker's commands. Found: {error}") from error
        if isinstance(error, TRANSIENT_ERRORS) or str(error).startswith(TRANSIENT_PREFIXES):
            raise Unavailable(f"Redis {self.name} should take commands. Found: {error}") from error
        if isinstance(error, redis.exceptions.MovedError):
            raise BadConfig([f"`redis.cluster` should be true where {self.name} is one. Found false."]) from error
        raise error


def is_demoted(replies: Sequence[Any]) -> bool:
    """Whether a server says that it is not the one to write to."""
    return any(
        isinstance(reply, DEMOTED_ERRORS) or (isinstance(reply, Exception) and str(reply).startswith(DEMOTED_PREFIXES))
        for reply in replies
    )


def disconnect_if_demoted(connection: Any, replies: Sequence[Any]) -> None:
    """Drop the connection to a demoted server: the next attempt resolves the address again."""
    if is_demoted(replies):
        connection.disconnect()


def to_pairs(reply: Any) -> list[tuple[bytes, bytes]]:
    """A reply of names and values: a map or a flat list, by the version of the protocol."""
    if isinstance(reply, dict):
        return [(as_bytes(k), as_bytes(v)) for k, v in reply.items()]
    return list(zip(reply[::2], reply[1::2], strict=True))


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
