"""A Redis Cluster of one's own: three servers that share the slots, which can be moved from one to another."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import redis

from contract.errors import Unavailable
from demo.servers.child import free_ports
from demo.servers.redis_server import START_WITHIN_S, RedisServer

SLOTS: Final = 16_384
POLL_S: Final = 0.02


class RedisCluster:
    """Three primaries, each on a loopback port of its own, and no replicas."""

    def __init__(self, *, binary: str | None = None, servers: int = 3) -> None:
        self._buses = free_ports(servers)  # by default they are 10,000 above the ports, where anybody may be
        self.servers = [
            RedisServer(binary=binary, settings={"cluster-enabled": "yes", "cluster-port": str(bus)})
            for bus in self._buses
        ]
        self._doors = [redis.Redis.from_url(server.url, decode_responses=True) for server in self.servers]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """The address of the first server, which tells of the others."""
        return self.servers[0].url

    def start(self) -> Self:
        """Start all, share the slots out, and return once every server knows who owns what."""
        for server in self.servers:
            self._stack.enter_context(server)
        share = -(-SLOTS // len(self.servers))
        for number, server in enumerate(self.servers):
            self.ask(number, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            self.ask(number, "CLUSTER ADDSLOTSRANGE", number * share, min((number + 1) * share, SLOTS) - 1)
            self.ask(0, "CLUSTER MEET", "127.0.0.1", server.port, self._buses[number])
        deadline = time.monotonic() + START_WITHIN_S
        while not all(self._knows_all(number) for number in range(len(self.servers))):
            if time.monotonic() > deadline:
                raise Unavailable(f"A cluster should form within {START_WITHIN_S:g} s. Found that it does not.")
            time.sleep(POLL_S)
        return self

    def ask(self, number: int, command: str, *arguments: Any) -> Any:
        """What one server answers to a command."""
        door: Any = self._doors[number]
        return door.execute_command(command, *arguments)

    def flush(self) -> None:
        """Delete every key."""
        for number in range(len(self.servers)):
            self.ask(number, "FLUSHALL")

    def owner(self, slot: int) -> int:
        """The number of the server that owns a slot."""
        ports = {server.port: number for number, server in enumerate(self.servers)}
        ranges = self.ask(0, "CLUSTER SLOTS")
        return next(ports[primary[1]] for first, last, primary, *_ in ranges if first <= slot <= last)

    def begin_move(self, slot: int, to: int) -> None:
        """From now on keys of the slot may be on either server."""
        self.ask(to, "CLUSTER SETSLOT", slot, "IMPORTING", self._ident(self.owner(slot)))
        self.ask(self.owner(slot), "CLUSTER SETSLOT", slot, "MIGRATING", self._ident(to))

    def move_keys(self, slot: int, to: int, keys: Sequence[str] | None = None) -> None:
        """Move these keys of the slot, or all."""
        source = self.owner(slot)
        for key in keys if keys is not None else self.ask(source, "CLUSTER GETKEYSINSLOT", slot, 1_000_000):
            self.ask(source, "MIGRATE", "127.0.0.1", self.servers[to].port, key, 0, 10_000)

    def end_move(self, slot: int, to: int) -> None:
        """The slot is the other server's."""
        ident = self._ident(to)
        for number in (to, *(number for number in range(len(self.servers)) if number != to)):
            self.ask(number, "CLUSTER SETSLOT", slot, "NODE", ident)

    def take_over(self, slot: int, to: int) -> None:
        """The slot is the other server's without its keys, as after a failover to a replica that had none."""
        self.ask(to, "CLUSTER SETSLOT", slot, "NODE", self._ident(to))
        self.ask(to, "CLUSTER BUMPEPOCH")

    def move(self, slot: int, to: int) -> None:
        """All of it."""
        self.begin_move(slot, to)
        self.move_keys(slot, to)
        self.end_move(slot, to)

    def close(self) -> None:
        """End all and remove their data."""
        for door in self._doors:
            door.close()
        self._stack.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ident(self, number: int) -> str:
        return str(self.ask(number, "CLUSTER MYID"))

    def _knows_all(self, number: int) -> bool:
        info = self.ask(number, "CLUSTER INFO")
        return bool(info["cluster_state"] == "ok" and info["cluster_size"] == str(len(self.servers)))
