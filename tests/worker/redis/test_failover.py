"""After a failover, clients of a name or a virtual address reach the new primary without a restart."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest
import redis

from contract.errors import Unavailable
from devservers.redis_server import RedisServer
from tests.polling import wait_until
from worker.redis.client import RedisClient
from worker.redis.cluster import RedisCluster

READ_BYTES: Final = 65_536
SLOTS: Final = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n"
REFUSALS: Final = (
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-READONLY You can't write against a read only replica. script: 7f, on @user_script:1.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n",
    b"-NOREPLICAS Not enough good replicas to write.\r\n",
)


class DemotedServer:
    """Refuses every SET and GET on its first connection, and takes them on later ones, as behind a virtual address."""

    def __init__(self, refusal: bytes) -> None:
        self._refusal, self.connections = refusal, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection, self.connections == 1), daemon=True).start()

    def _serve(self, connection: socket.socket, is_demoted: bool) -> None:
        with connection, suppress(OSError):
            while received := connection.recv(READ_BYTES):
                for command in received.split(b"*")[1:]:
                    if b"CLUSTER" in command:
                        connection.sendall(SLOTS % self.port)
                    elif b"SET\r\n$3\r\nkey" in command or b"GET\r\n$3\r\nkey" in command:
                        connection.sendall(self._refusal if is_demoted else b"+OK\r\n")
                    else:
                        connection.sendall(b"+OK\r\n")


class VirtualAddress:
    """Forwards new connections to the server that is the primary now; those that are open stay where they are."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # ends the wait for a connection
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target_port))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with source:
            with suppress(OSError):
                while data := source.recv(READ_BYTES):
                    target.sendall(data)
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    with RedisServer(settings={"repl-diskless-sync-delay": "0"}) as primary, RedisServer() as replica:
        with redis.Redis.from_url(replica.url) as operator:
            operator.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            wait_until(lambda: operator.info("replication")["master_link_status"] == "up")
        yield primary, replica


def fail_over(pair: tuple[RedisServer, RedisServer], address: VirtualAddress) -> None:
    """Make the replica the primary, and the primary its replica, which goes on answering."""
    primary, replica = pair
    with redis.Redis.from_url(primary.url) as operator:
        operator.execute_command("FAILOVER")
        wait_until(lambda: operator.info("replication")["role"] == "slave")
    address.target_port = replica.port


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.split()[0].decode()[1:])
@pytest.mark.parametrize("client_type", [RedisClient, RedisCluster])
def test_a_demoted_server_is_left_by_the_next_attempt(client_type: type[RedisClient], refusal: bytes) -> None:
    # given
    server = DemotedServer(refusal)
    client = client_type(url=server.url, timeout_s=20)
    # when
    with pytest.raises(Unavailable, match="should take commands"):
        client.pipeline([("SET", "key", "value")])
    # then
    assert client.pipeline([("SET", "key", "value")]) == [b"OK"]
    assert server.connections == 2
    client.close()
    server.close()


def test_a_demoted_server_is_left_after_a_refused_read_of_profiles() -> None:
    # given
    server = DemotedServer(REFUSALS[2])
    client = RedisClient(url=server.url, timeout_s=20)
    # when
    with pytest.raises(Unavailable):
        client.read_hashes([], ("GET", "key"))
    # then
    assert client.read_hashes([], ("GET", "key"))[1] == b"OK"
    client.close()
    server.close()


@pytest.mark.parametrize("write", ["command", "script"])
def test_a_client_of_a_virtual_address_follows_a_failover(pair: tuple[RedisServer, RedisServer], write: str) -> None:
    # given a client that is connected to the primary
    address = VirtualAddress(pair[0].port)
    client = RedisClient(url=address.url, timeout_s=20)

    def set_key(value: str) -> None:
        if write == "command":
            client.pipeline([("SET", "key", value)])
        else:
            client.run_script("return redis.call('SET', KEYS[1], ARGV[1])", [(["key"], [value])])

    set_key("before")
    # when
    fail_over(pair, address)
    with pytest.raises(Unavailable, match="replica"):
        set_key("after")
    set_key("after")
    # then
    with redis.Redis.from_url(pair[1].url) as operator:
        assert operator.get("key") == b"after"
    client.close()
    address.close()
