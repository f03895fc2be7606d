"""The client of a Redis Cluster: each command goes to the server that owns its key's slot, many at once.

redis-py's own cluster client splits pipelines command by command, in Python; here a batch is one write and one read per
server. Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.crc import key_slot

from contract.errors import BadConfig, Unavailable
from contract.settings.servers import RedisSettings
from worker.redis.client import RedisClient, disconnect_if_demoted, is_demoted
from worker.redis.resp import Hashes, to_hashes
from worker.redis.wire import Commands, pack_commands

REDIRECTS_MAX: Final = 8  # a slot may move again during a redirect
PAUSE_S: Final = 0.02
NO_HOST: Final = (None, b"", b"?")  # the server that answered
SCRIPT_CALLS: Final = ("EVALSHA", "EVAL")


class Route(NamedTuple):
    """The server of a command; `is_ask`: it does not own the slot yet, so ASKING goes first."""

    server: RedisClient
    is_ask: bool = False


class RedisCluster(RedisClient):
    """Connections to all servers of a cluster, used by one thread. `url` is that of any server."""

    shell = "redis-cli -c"
    spans_slots = False

    def __init__(self, *, url: str, timeout_s: float) -> None:
        super().__init__(url=url, timeout_s=timeout_s)
        self._url, self._timeout_s = url, timeout_s
        self._servers: dict[tuple[str, int], RedisClient] = {}
        self._owners: dict[int, RedisClient] = {}  # by slot; empty: unknown

    def pipeline_then(self, commands: Commands, last: Sequence[Any]) -> list[Any]:
        # There is no order between servers, so the last command is sent when all others are answered.
        return [*self.pipeline(commands), *self.pipeline([last])]

    def read_hashes(self, keys: Sequence[str], last: Sequence[Any] | None = None) -> tuple[Hashes, Any]:
        hashes = to_hashes(self.pipeline([("HGETALL", key) for key in keys]))
        return hashes, None if last is None else self.pipeline([last])[0]

    def servers(self) -> Sequence[RedisClient]:
        self._refresh_slots()
        return list(dict.fromkeys(self._owners.values()))

    def close(self) -> None:
        super().close()
        for server in self._servers.values():
            server.close()

    def _exchange(self, commands: Commands) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        try:
            routes = {number: Route(self._find_owner(command_slot(command))) for number, command in enumerate(commands)}
            for _ in range(REDIRECTS_MAX):
                for number, reply in send_commands(commands, routes):
                    replies[number] = reply
                routes = dict(self._follow_redirects(replies, routes))
                if not routes:
                    break
            if is_demoted(replies):
                self._owners.clear()
        except BaseException:
            self._owners.clear()  # a server that did not answer may have lost its slots
            raise
        return replies

    def _follow_redirects(self, replies: Sequence[Any], routes: Mapping[int, Route]) -> Iterator[tuple[int, Route]]:
        """The next route of each command that its server redirected."""
        must_wait = False
        for number, route in routes.items():
            match replies[number]:
                case redis.exceptions.MovedError() as moved:
                    server = self._owners[moved.slot_id] = self._get_server(moved.host or route.server.host, moved.port)
                    yield number, Route(server)
                case redis.exceptions.AskError() as ask:
                    yield number, Route(self._get_server(ask.host or route.server.host, ask.port), is_ask=True)
                case redis.exceptions.TryAgainError():  # only some keys of a script have moved
                    must_wait = True
                    yield number, route
                case redis.exceptions.ClusterDownError():
                    self._owners.clear()
        if must_wait:
            time.sleep(PAUSE_S)

    def _find_owner(self, slot: int) -> RedisClient:
        if not self._owners:
            self._refresh_slots()
        if slot not in self._owners:
            raise redis.exceptions.ClusterDownError(f"no server owns slot {slot}")
        return self._owners[slot]

    def _refresh_slots(self) -> None:
        """Ask for the owners of all slots: the known servers in random order, since any may be wrong, `url` last."""
        candidates = [*random.sample([*self._servers.values()], len(self._servers)), self._seed_server()]
        for number, server in enumerate(candidates):
            try:
                (ranges,) = server.pipeline([("CLUSTER", "SLOTS")])
            except Unavailable:
                if number == len(candidates) - 1:
                    raise
            except redis.ResponseError as error:
                raise BadConfig([f"`redis.cluster` should be true of a Redis Cluster. Found: {error}"]) from error
            else:
                self._owners = dict(self._parse_slots(ranges, server.host))
                return

    def _parse_slots(self, ranges: Sequence[Any], asked_host: str) -> Iterator[tuple[int, RedisClient]]:
        for first, last, (host, port, *_), *_ in ranges:
            server = self._get_server(asked_host if host in NO_HOST else host.decode(), port)
            yield from ((slot, server) for slot in range(first, last + 1))

    def _seed_server(self) -> RedisClient:
        return self._get_server(self.host, urlsplit(self._url).port or 6379)

    def _get_server(self, host: str, port: int) -> RedisClient:
        """The client of one server, with the credentials and TLS settings of `url`."""
        if (host, port) not in self._servers:
            url = replace_address(self._url, host, port)
            self._servers[host, port] = RedisClient(url=url, timeout_s=self._timeout_s)
        return self._servers[host, port]

    def _raise_error(self, error: Exception, key: str = "") -> None:
        if isinstance(error, redis.exceptions.AskError):  # MOVED is one too
            raise Unavailable(f"Redis {self.name} should name the owner of a slot. Found: {error}") from error
        super()._raise_error(error, key)


def send_commands(commands: Commands, routes: Mapping[int, Route]) -> list[tuple[int, Any]]:
    """Send all commands to their servers at once; returns the number of each command and its reply."""
    commands_by_server: dict[RedisClient, list[tuple[int, Sequence[Any]]]] = {}
    for number, (server, is_ask) in routes.items():
        server_commands = commands_by_server.setdefault(server, [])
        server_commands += [(-1, ("ASKING",)), (number, commands[number])] if is_ask else [(number, commands[number])]
    replies: list[tuple[int, Any]] = []
    with ExitStack() as stack:
        connections = {server: stack.enter_context(server.connection()) for server in commands_by_server}
        for server, server_commands in commands_by_server.items():
            connections[server].send_packed_command([pack_commands([command for _, command in server_commands])])
        for server, server_commands in commands_by_server.items():
            numbers = [number for number, _ in server_commands]
            server_replies = server.wire.read(connections[server], len(server_commands))
            disconnect_if_demoted(connections[server], server_replies)
            replies += zip(numbers, server_replies, strict=True)
    return [(number, reply) for number, reply in replies if number >= 0]


def command_slot(command: Sequence[Any]) -> int:
    """The slot of a command's first key; all its keys share a hash tag."""
    return hash_slot(command[3] if command[0] in SCRIPT_CALLS else command[1])


@lru_cache(maxsize=65_536)
def hash_slot(key: str | bytes) -> int:
    return key_slot(key.encode() if isinstance(key, str) else key)


def replace_address(url: str, host: str, port: int) -> str:
    """The same URL with another host and port."""
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    host_part = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=f"{credentials}@{host_part}:{port}" if credentials else f"{host_part}:{port}").geturl()


def connect(settings: RedisSettings) -> RedisClient:
    """The client of the server with profiles, offsets and decisions."""
    return open_client(settings.url, settings.timeout_s, is_cluster=settings.cluster)


def connect_cache(settings: RedisSettings, state_client: RedisClient) -> RedisClient:
    """The client of the server with lists and rankings; `state_client` where that is the same server."""
    if settings.cache_url is None:
        return state_client
    return open_client(settings.cache_url, settings.timeout_s, is_cluster=settings.cache_cluster)


def open_client(url: str, timeout_s: float, *, is_cluster: bool) -> RedisClient:
    return RedisCluster(url=url, timeout_s=timeout_s) if is_cluster else RedisClient(url=url, timeout_s=timeout_s)
