"""A Redis Cluster on this machine: servers that share the slots, and commands to move slots between them."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import redis

from contract.errors import Unavailable
from devservers.process import find_free_ports
from devservers.redis_server import START_TIMEOUT_S, RedisServer

SLOTS: Final = 16_384
POLL_S: Final = 0.02


class LocalRedisCluster:
    """Primaries on free loopback ports, without replicas."""

    def __init__(self, *, binary: str | None = None, servers: int = 3) -> None:
        self._bus_ports = find_free_ports(servers)  # the default, 10,000 above each port, may be in use
        self.servers = [
            RedisServer(binary=binary, settings={"cluster-enabled": "yes", "cluster-port": str(bus)})
            for bus in self._bus_ports
        ]
        self._clients = [redis.Redis.from_url(server.url, decode_responses=True) for server in self.servers]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address of the first server; a client discovers the others from it."""
        return self.servers[0].url

    def start(self) -> Self:
        """Start all servers, assign the slots, and wait until every server knows all owners."""
        for server in self.servers:
            self._stack.enter_context(server)
        share = -(-SLOTS // len(self.servers))
        for number, server in enumerate(self.servers):
            self.execute(number, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            self.execute(number, "CLUSTER ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            self.execute(0, "CLUSTER MEET", "127.0.0.1", server.port, self._bus_ports[number])
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(self._is_formed(number) for number in range(len(self.servers))):
            if time.monotonic() > deadline:
                raise Unavailable(f"A cluster should form within {START_TIMEOUT_S:g} s. Found that it did not.")
            time.sleep(POLL_S)
        return self

    def execute(self, number: int, command: str, *arguments: Any) -> Any:
        """The reply of one server to a command."""
        client: Any = self._clients[number]
        return client.execute_command(command, *arguments)

    def flush(self) -> None:
        """Delete every key."""
        for number in range(len(self.servers)):
            self.execute(number, "FLUSHALL")

    def owner_of(self, slot: int) -> int:
        """The number of the server that owns a slot."""
        ports = {server.port: number for number, server in enumerate(self.servers)}
        ranges = self.execute(0, "CLUSTER SLOTS")
        return next(ports[primary[1]] for first, last, primary, *_ in ranges if first <= slot <= last)

    def begin_migration(self, slot: int, target: int) -> None:
        """Begin to move a slot: its keys may then be on either server."""
        self.execute(target, "CLUSTER SETSLOT", slot, "IMPORTING", self._node_id(self.owner_of(slot)))
        self.execute(self.owner_of(slot), "CLUSTER SETSLOT", slot, "MIGRATING", self._node_id(target))

    def migrate_keys(self, slot: int, target: int, keys: Sequence[str] | None = None) -> None:
        """Move these keys of the slot (None: all) to the target."""
        source = self.owner_of(slot)
        for key in keys if keys is not None else self.execute(source, "CLUSTER GETKEYSINSLOT", slot, 1_000_000):
            self.execute(source, "MIGRATE", "127.0.0.1", self.servers[target].port, key, 0, 10_000)

    def end_migration(self, slot: int, target: int) -> None:
        """Make the target the owner of the slot."""
        node_id = self._node_id(target)
        for number in (target, *(number for number in range(len(self.servers)) if number != target)):
            self.execute(number, "CLUSTER SETSLOT", slot, "NODE", node_id)

    def reassign_slot(self, slot: int, target: int) -> None:
        """Make the target the owner without moving keys, as a failover to an empty replica does."""
        self.execute(target, "CLUSTER SETSLOT", slot, "NODE", self._node_id(target))
        self.execute(target, "CLUSTER BUMPEPOCH")

    def migrate_slot(self, slot: int, target: int) -> None:
        """Move a slot and all its keys to the target."""
        self.begin_migration(slot, target)
        self.migrate_keys(slot, target)
        self.end_migration(slot, target)

    def close(self) -> None:
        """Kill all servers and remove their data."""
        for client in self._clients:
            client.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _node_id(self, number: int) -> str:
        return str(self.execute(number, "CLUSTER MYID"))

    def _is_formed(self, number: int) -> bool:
        info = self.execute(number, "CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_size"] == str(len(self.servers)))
